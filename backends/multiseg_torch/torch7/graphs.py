"""Read the steps of an nn.gModule: of a Lua file, or of a .t7 file with nngraph's nodes."""

from __future__ import annotations

from multiseg_torch.torch7.layers import Step
from multiseg_torch.torch7.objects import Object, Problem


def of(graph: Object) -> tuple[list[Object], list[Step]]:
    """Return the modules of a graph, and its steps in the order of their computation.

    Raises Problem if it is not a graph that ends in one node.
    """
    steps = graph.fields.get("steps")
    return _recorded(graph, steps) if isinstance(steps, Object) else _of_nodes(graph)


def _recorded(graph: Object, steps: Object) -> tuple[list[Object], list[Step]]:
    """Return the steps that nngraph.lua records; indices of Lua count from 1."""

    def step(each: Object) -> Step:
        module = each.whole("module") - 1 if each.fields.get("module") is not None else None
        inputs = tuple(index - 1 for index in each.wholes("inputs"))
        select = each.whole("select") if each.fields.get("select") is not None else None
        return Step(inputs, module, select, each.flag("list"))

    return graph.modules(), [step(each) for each in steps.listed()]


def _of_nodes(graph: Object) -> tuple[list[Object], list[Step]]:
    """Return the steps of nngraph's forward nodes, whose ``data`` holds module, selectindex and, in mapindex, the inputs' data
    (https://github.com/torch/nngraph/blob/master/gmodule.lua)."""
    forward = graph.fields.get("forwardnodes")
    nodes = forward.listed() if isinstance(forward, Object) else []
    if not nodes:
        raise Problem(f"{graph.place}: has no forwardnodes")
    modules: list[Object] = []
    steps: list[Step] = []
    known: dict[int, int] = {}
    for node in nodes:
        data = node.fields.get("data") if isinstance(node, Object) else None
        if not isinstance(data, Object):
            raise Problem(f"{graph.place}: has a node without data")
        mapped = data.fields.get("mapindex")
        inputs = [known.get(id(each)) for each in mapped.listed()] if isinstance(mapped, Object) else []
        if None in inputs:
            raise Problem(f"{graph.place}: has a node whose inputs are computed after it, or not at all")
        module = data.fields.get("module")
        index = None
        if module is not None:
            if not isinstance(module, Object) or module.type is None:
                raise Problem(f"{graph.place}: has a node whose module is not a module")
            if not inputs:
                raise Problem(f"{module.place}: has no input in its graph, which is not supported")
            index = len(modules)
            modules.append(module)
        elif data.fields.get("criterion") is not None:
            raise Problem(f"{graph.place}: has a criterion in a node, which is not supported")
        select = data.whole("selectindex") if data.fields.get("selectindex") is not None else None
        known[id(data)] = len(steps)
        steps.append(Step(tuple(each for each in inputs if each is not None), index, select))
    if sum(not step.inputs for step in steps) != 1:
        raise Problem(f"{graph.place}: has several nodes without inputs")
    return modules, steps
