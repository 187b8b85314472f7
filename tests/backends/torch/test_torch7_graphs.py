"""nngraph's graphs, modules that files define (torch.class), and modules of tables: against PyTorch's functions and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.t7_writer import Torch, Writer, t7, tensor
from multiseg.errors import ModelError

pytestmark = pytest.mark.needs("torch")

GRAPH = """require 'nngraph'
local last = nn.SpatialConvolution(6, 1, 1, 1)
local x = nn.Identity()()
local b = nn.SpatialConvolution(2, 3, 1, 1)(x):annotate{name = 'b'}
local a = x - nn.SpatialConvolution(2, 3, 3, 3, 1, 1, 1, 1) - nn.ReLU(true)
local both = nn.ConcatTable():add(nn.CAddTable()):add(nn.CMulTable())({a, b})
local sum, product = both:split(2)
graph.dot(x, 'x')
return nn.gModule({x}, {last({product, sum} - nn.JoinTable(1, 3))})
"""
CLASSES = """local Residual, parent = torch.class('nn.Residual', 'nn.Container')
function Residual:__init(n)
   parent.__init(self)
   self.conv, self.skip = nn.SpatialConvolution(n, n, 3, 3, 1, 1, 1, 1), nn.SpatialConvolution(n, n, 1, 1)
   self:add(self.skip)
   self:add(self.conv)
   self.sum, self.gradInput = nn.CAddTable(), torch.Tensor()
end
function Residual:updateOutput(input)
   self.output = self.sum:updateOutput({self.conv:forward(input), self.skip:forward(input)})
   return self.output
end
local Block, Sequential = torch.class('nn.Block', 'nn.Sequential')
function Block:__init(n)
   Sequential.__init(self)
   self:add(nn.Residual(n)):add(nn.ReLU())
end
local Twice, Base = torch.class('nn.Twice', 'nn.Block')
function Twice:updateOutput(input)
   return Base.updateOutput(self, Base.updateOutput(self, input))
end
local model = nn.Sequential():add(nn.Twice(2))
assert(torch.isTypeOf(model:get(1), 'nn.Sequential') and torch.type(model:get(1)) == 'nn.Twice')
assert(#model:findModules('nn.Residual') == 1 and tostring(model:get(1)) == 'nn.Twice')
return model
"""


def load(tmp_path: Path, text: str | bytes, shape: tuple[int, int, int] = (2, 5, 6)) -> Any:
    from multiseg_torch import files

    path = tmp_path / ("net.t7" if isinstance(text, bytes) else "net.lua")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return files.load(str(path), shape).model.eval()


def numbered(model: Any) -> list[Any]:
    """The parameters of a network, set to the numbers from 0 as Torch7's getParameters counts them."""
    import torch
    from multiseg_torch import weights

    count = sum(each.numel() for each in model.parameters())
    values = weights.unflattened(model, "net", {weights.FLAT: np.arange(count, dtype=np.float32) / count})
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in values.items()})
    return [each.detach() for each in model.parameters()]


def test_a_graph_computes_what_its_nodes_do_with_parameters_in_the_order_of_forward_nodes(tmp_path: Path) -> None:
    """That order is the depth-first one from the output, each node after its inputs (Graph.lua, topsort): a, b, last."""
    import torch
    from torch.nn import functional as F

    model = load(tmp_path, GRAPH)
    parameters = numbered(model)
    assert [tuple(each.shape) for each in parameters[::2]] == [(3, 2, 3, 3), (3, 2, 1, 1), (1, 6, 1, 1)]
    total = sum(each.numel() for each in parameters)
    assert parameters[0].ravel()[0] == 0 and float(parameters[2].ravel()[0]) == pytest.approx(57 / total)
    x = torch.randn(2, 2, 5, 6)
    a, b = F.relu(F.conv2d(x, *parameters[:2], padding=1)), F.conv2d(x, *parameters[2:4])
    with torch.no_grad():
        torch.testing.assert_close(model(x), F.conv2d(torch.cat([a * b, a + b], 1), *parameters[4:]))


def test_a_graph_saved_by_torch7_is_read_from_its_forward_nodes(tmp_path: Path) -> None:
    """Nodes refer to each other in both directions, by their data tables, as nngraph writes them."""
    import torch
    from torch.nn import functional as F

    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, 2, 3, 3)).astype(np.float32), rng.normal(size=2).astype(np.float32)]
    conv = Torch(
        "nn.SpatialConvolution", nInputPlane=2, nOutputPlane=2, kW=3, kH=3, dW=1, dH=1, padW=1, padH=1,
        weight=tensor(arrays[0]), bias=tensor(arrays[1]),
    )  # fmt: skip
    modules = [None, None, conv, Torch("nn.ConcatTable", modules=[Torch("nn.Tanh"), Torch("nn.Abs")])]
    modules += [None, None, None, Torch("nn.CSubTable"), None]
    inputs: list[list[int]] = [[], [0], [1], [2], [3], [4], [4], [6, 5], [7]]
    nodes: list[Torch] = []
    for index, (module, sources) in enumerate(zip(modules, inputs, strict=True)):
        data: dict[Any, Any] = {"annotations": {}, "reverseMap": {}, "mapindex": {}}
        if module is not None:
            data["module"] = module
        if index in (5, 6):
            data["selectindex"] = index - 4
        node = Torch("nngraph.Node", data=data, children=[], id=index + 1, visited=False, marked=False)
        for place, source in enumerate(sources):
            data["mapindex"][place + 1] = nodes[source].fields["data"]
            nodes[source].fields["children"].append(node)
        nodes.append(node)
    graph = Torch("nn.gModule", modules=[m for m in modules if m], forwardnodes=nodes, outnode=nodes[-1], nInputs=1)
    model = load(tmp_path, t7({"model": graph}))
    x = torch.randn(2, 2, 5, 6)
    y = F.conv2d(x, *map(torch.from_numpy, arrays), padding=1)
    with torch.no_grad():
        torch.testing.assert_close(model(x), y.abs() - y.tanh())


def test_graphs_nested_thousands_of_nodes_deep_are_read(tmp_path: Path) -> None:
    from multiseg_torch.torch7 import t7 as reader

    writer = Writer()
    for index in range(1, 6000, 2):  # an object, whose table of one field holds the next one
        writer.integer(4, index)
        writer.head("nngraph.Node", "V 1")
        writer.integer(3, index + 1, 1)
        writer.write("next")
    writer.write(None)
    (tmp_path / "deep.t7").write_bytes(bytes(writer.out))
    node, depth = reader.read(str(tmp_path / "deep.t7")), 0
    while node is not None:
        node, depth = node.fields["next"], depth + 1
    assert depth == 3000


def test_modules_that_a_file_defines_compute_by_those_they_call(tmp_path: Path) -> None:
    """The parameters have the order of the container: skip before conv."""
    import torch
    from torch.nn import functional as F

    model = load(tmp_path, CLASSES)
    parameters = numbered(model)
    assert [tuple(each.shape) for each in parameters] == [(2, 2, 1, 1), (2,), (2, 2, 3, 3), (2,)]
    x = y = torch.randn(2, 2, 5, 6)
    for _ in range(2):
        y = F.relu(F.conv2d(y, *parameters[2:], padding=1) + F.conv2d(y, *parameters[:2]))
    with torch.no_grad():
        torch.testing.assert_close(model(x), y)


def test_methods_that_a_file_replaces_are_followed_or_stop_training(tmp_path: Path) -> None:
    """accGradParameters that does nothing freezes a layer; a gradient of the file's own stops training only."""
    from multiseg_torch.network import Network

    from multiseg.network import NetworkSpec

    text = """local net = nn.Sequential():add(nn.SpatialConvolution(2, 2, 1, 1)):add(nn.SpatialConvolution(2, 1, 1, 1))
    net:get(1).accGradParameters = function() end
    net:get(2).updateOutput = function(self, input) return nn.SpatialConvolution.updateOutput(self, input) end
    """
    with pytest.raises(ModelError, match=r"its updateOutput .* it calls updateOutput of nn.SpatialConvolution"):
        load(tmp_path, text + "return net")
    model = load(tmp_path, text.splitlines()[0] + text.splitlines()[1] + " return net")
    assert [each.requires_grad for each in model.parameters()] == [False, False, True, True]
    reversal = """local R = torch.class('nn.Reversal', 'nn.Module')
    function R:updateOutput(input) self.output = input return input end
    function R:updateGradInput(input, gradOutput) return gradOutput:clone():mul(-1) end
    return nn.Sequential():add(nn.SpatialConvolution(2, 1, 1, 1)):add(nn.Reversal())"""
    load(tmp_path, reversal)
    settings: Any = dict(
        model=str(tmp_path / "net.lua"), input_shape=(2, 5, 6), label_shape=(1, 5, 6), loss="l2", batch_size=None,
        val_batch_size=None, seed=1, threads=1, device="cpu", lowering=True,
    )  # fmt: skip
    Network(NetworkSpec(solver=None, **settings))
    with pytest.raises(
        ModelError, match=r"nn.gModule: its updateGradInput is replaced by the file's own; such a network"
    ):
        Network(NetworkSpec(solver="sgd", **settings))


def test_modules_of_tables_and_learned_factors(tmp_path: Path) -> None:
    """Each element of a dimension to its own module; leading axes combined; factors of the channels; unpooling by hand."""
    import torch

    x = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
    with torch.no_grad():
        made = load(tmp_path, "return nn.Parallel(2, 2):add(nn.Identity()):add(nn.MulConstant(10))", (2, 3, 4))(x)
        assert torch.equal(made, torch.cat([x[:, 0], 10 * x[:, 1]], 1))
        joined = "return nn.Sequential():add(nn.SplitTable(1, 3)):add(nn.NarrowTable(2, 1)):add(nn.SelectTable(-1))"
        assert torch.equal(load(tmp_path, joined, (2, 3, 4))(x), x[:, 1])
        bottle = load(tmp_path, "return nn.Bottle(nn.Linear(4, 2))", (2, 3, 4))
        torch.testing.assert_close(bottle(x), x @ bottle[0].weight.T + bottle[0].bias)
        factors = "local m = nn.CMul(1, 2, 1, 1) m.weight:copy(torch.Tensor({3, -1})) return m"
        assert torch.equal(load(tmp_path, factors, (2, 3, 4))(x), x * torch.tensor([3.0, -1]).reshape(2, 1, 1))
        smaller = "return nn.Sequential():add(nn.ConcatTable():add(nn.AddConstant(-12)):add(nn.Identity())):add(nn.CMinTable())"
        assert torch.equal(load(tmp_path, smaller, (2, 3, 4))(x), x - 12)
        pooled = """local pool = nn.SpatialMaxPooling(2, 2, 2, 2)
        return nn.Sequential():add(pool):add(nn.MulConstant(2)):add(nn.SpatialMaxUnpooling(pool))"""
        expected = torch.zeros(1, 2, 3, 4)  # of 3 rows, the last one is in no window
        expected[:, :, 1, 1::2] = 2 * x[:, :, 1, 1::2]
        assert torch.equal(load(tmp_path, pooled, (2, 3, 4))(x), expected)
        adaptive = load(tmp_path, "return nn.SpatialAdaptiveAveragePooling(2, 1)", (2, 3, 4))(x)
        assert torch.equal(adaptive[0, 0], torch.tensor([[4.5, 6.5]]))


def test_elements_are_read_where_the_file_states_their_values(tmp_path: Path) -> None:
    text = """local t = torch.Tensor{{1, 2}, {3, 4}}:mul(2)
    local row, copy, zeros = t[2], t:clone(), torch.zeros(2)
    row[1], zeros[2] = 5, 9
    copy:fill(7)
    assert(t[1][1] == 2 and t[2][1] == 5 and row[2] == 8 and zeros[1] == 0 and copy[1][2] == 7 and t:view(4)[4] == 8)
    assert(not pcall(function() return t:clone():normal()[1][1] end))
    local net = nn.Sequential():add(nn.SpatialConvolution(2, row[1] and zeros[2], 1, 1))
    print(net:forward(torch.rand(1, 2, 4, 4)))
    return net"""
    assert load(tmp_path, text)[0].out_channels == 9


def test_a_neighbour_that_is_too_large_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiseg_torch.torch7 import sandbox

    monkeypatch.setattr(sandbox, "LARGEST", 100)
    (tmp_path / "small.lua").write_text(" " * 100)
    (tmp_path / "large.lua").write_text(" " * 101)
    assert sandbox.Beside(str(tmp_path)).source("small", True) == (" " * 100, "small.lua")
    with pytest.raises(ValueError, match=r"large\.lua:1: is larger than"):
        sandbox.Beside(str(tmp_path)).source("large", True)
