"""Which operations of a graph file are run: those of networks. A graph is a program; other operations reach files and hosts.

Reading a graph file runs nothing but the restoring and the initialisers of its variables; training and testing run what the
output depends on. These are checked here before, with the functions that they call: an operation beyond the list is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorflow.python.framework import op_def_registry

from multiseg.backend import HOW_TO_TRUST, trusts_graphs
from multiseg.errors import ModelError
from multiseg_tensorflow.tensors import reachable

# TensorFlow declares which operations have an effect beyond their outputs ("stateful"); of these a network needs:
STATEFUL = re.compile(
    r"Assert|Assign(Add|Sub)?VariableOp|If|While|Case|StatefulPartitionedCall|CheckNumerics(V2)?|Empty|GuaranteeConst|Multinomial"
    r"|ParameterizedTruncatedNormal|TruncatedNormal|Random(Crop|Gamma|Poisson|PoissonV2|Shuffle|StandardNormal|Uniform|UniformInt)"
    r"|Stateful(RandomBinomial|StandardNormal|StandardNormalV2|TruncatedNormal|Uniform|UniformFullInt|UniformInt)"
    r"|StatelessRandomGetAlg|ReadVariableOp|ResourceGather(Nd)?|VarHandleOp|VarIsInitializedOp|Variable(V2|Shape)?"
    r"|TemporaryVariable|TensorArray\w*|Stack\w*|DeepCopy|SampleDistortedBoundingBox(V2)?"
)
# the others only compute, but for these, whose kernels reach files or hosts all the same, or end the process
EXCLUDED = re.compile(
    r"\w*(Dataset|Reader|File|Debug|PyFunc|Queue|Proto|Experimental|TPU|Tpu|Xla|Remote|Recv|Send|Vocab|Table|Session)\w*"
    r"|Abort|Copy|CopyHost|BatchFunction|Batch|Unbatch"
)
RESTORING = re.compile(r"Restore(V2)?|Sharded(Filename|Filespec)")


def is_allowed(operation: str) -> bool:
    """Return whether an operation, of a type of TensorFlow's, is one that networks compute with."""
    known = op_def_registry.get(operation)
    if known is None:  # a function; its operations are checked
        return True
    if known.is_stateful:
        return STATEFUL.fullmatch(operation) is not None
    return EXCLUDED.fullmatch(operation) is None


def check(
    path: Path, graph: Any, operations: Iterable[Any], inputs: Iterable[Any] = (), restores: bool = False
) -> None:  # fmt: skip
    """Raise ModelError if running ``operations`` of a graph runs one that is not allowed, also in a function that they call.

    ``inputs`` are operations whose values are fed. ``restores``: the operations may read a checkpoint. Users can allow
    everything, see multiseg.backend.trusts_graphs.
    """
    if trusts_graphs():
        return
    fed = {*inputs}
    needed = reachable(
        operations, lambda op: () if op in fed else [*(tensor.op for tensor in op.inputs), *op.control_inputs]
    )
    called: set[str] = set()
    for op in sorted(needed - fed, key=lambda op: op.name):
        _check_node(path, op.node_def, restores)
        called |= _called(op.node_def)
    if not called:
        return
    functions = {function.signature.name: function for function in graph.as_graph_def().library.function}
    waiting = [*called]
    while waiting:
        function = functions.get(waiting.pop())
        for node in function.node_def if function else ():
            _check_node(path, node, restores)
            further = _called(node) - called
            called |= further
            waiting += further


def _called(node: Any) -> set[str]:
    """Return the names of the functions that a node calls: its own type, and those in its attributes."""
    names = {node.op}
    for attribute in node.attr.values():
        names |= {attribute.func.name, *(function.name for function in attribute.list.func)}
    return {name for name in names if name and op_def_registry.get(name) is None}


def _check_node(path: Path, node: Any, restores: bool) -> None:
    if is_allowed(node.op) or (restores and RESTORING.fullmatch(node.op)):
        return
    raise ModelError(
        f"{path}: its operation {node.name!r} ({node.op}) is not one of a network, and may read or write files; it is not run. "
        f"Export the graph without it; {HOW_TO_TRUST}"
    )
