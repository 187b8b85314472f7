"""Torch7's modules and criterions: values worked out by hand, by NumPy in float64, or by PyTorch without our code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.needs("torch")


def build(tmp_path: Path, lua: str, shape: Any = (1, 4, 4)) -> Any:
    """The model and loss of a Lua file that returns ``lua``."""
    from multiseg_torch import files

    path = tmp_path / "net.lua"
    path.write_text(f"return function(params) {lua} end" if "return" in lua else f"return {lua}")
    return files.load(str(path), shape)


def apply(tmp_path: Path, lua: str, x: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        return np.asarray(build(tmp_path, lua).model.eval()(torch.tensor(np.asarray(x, np.float32))))


def image(*rows: list[float]) -> list[Any]:
    return [[list(rows)]]


RAMP = image([1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16])


@pytest.mark.parametrize(
    ("lua", "expected"),
    [
        # 3x3 windows at stride 2 over 4x4: one place, and two where it rounds up
        ("nn.SpatialMaxPooling(3, 3, 2, 2)", [[11]]),
        ("nn.SpatialMaxPooling(3, 3, 2, 2):ceil()", [[11, 12], [15, 16]]),
        ("nn.SpatialMaxPooling(3, 3, 2, 2):ceil():floor()", [[11]]),
        ("nn.SpatialMaxPooling(2, 2)", [[6, 8], [14, 16]]),  # the stride is the window
        ("nn.SpatialMaxPooling(2, 2, 2, 2, 1, 1):ceil()", [[1, 3, 4], [9, 11, 12], [13, 15, 16]]),
        ("nn.SpatialAveragePooling(3, 3, 2, 2):ceil()", [[6, 7.5], [12, 13.5]]),  # what rounding up adds is not counted
        ("nn.SpatialAveragePooling(2, 2, 2, 2, 1, 1)", [[0.25, 1.25, 1], [3.5, 8.5, 5], [3.25, 7.25, 4]]),
        ("nn.SpatialAveragePooling(2, 2, 2, 2, 1, 1):setCountExcludePad()", [[1, 2.5, 4], [7, 8.5, 10], [13, 14.5, 16]]),
        ("nn.SpatialAveragePooling(4, 4)", [[8.5]]),
        ("nn.SpatialZeroPadding(1, 0, 0, -2)", [[0, 1, 2, 3, 4], [0, 5, 6, 7, 8]]),
        ("nn.Narrow(3, 2, 2)", [[5, 6, 7, 8], [9, 10, 11, 12]]),
        ("nn.Narrow(4, -2, 2)", [[3, 4], [7, 8], [11, 12], [15, 16]]),
        ("nn.Padding(2, -1, 3, 9)", [[9, 9, 9, 9], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]),
        ("nn.Transpose({3, 4})", [[1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15], [4, 8, 12, 16]]),
        ("nn.Sequential():add(nn.MulConstant(2)):add(nn.AddConstant(-30))", [[2 * n - 30 for n in range(r, r + 4)]
                                                                         for r in (1, 5, 9, 13)]),
        ("nn.Threshold(6, -1)", [[-1, -1, -1, -1], [-1, -1, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]),
        ("nn.HardTanh(3, 5)", [[3, 3, 3, 4], [5] * 4, [5] * 4, [5] * 4]),
        ("nn.Sequential():add(nn.Mean(3, 3))", [2.5, 6.5, 10.5, 14.5]),
        ("nn.Sum(2, 3)", [28, 32, 36, 40]),
        ("nn.Max(4)", [4, 8, 12, 16]),
        ("nn.Select(3, 2)", [5, 6, 7, 8]),
        ("nn.View(-1):setNumInputDims(3)", list(range(1, 17))),
        ("nn.View(16)", list(range(1, 17))),
        ("nn.Reshape(2, 8)", [list(range(1, 9)), list(range(9, 17))]),
        ("nn.Sequential():add(nn.Unsqueeze(2, 3)):add(nn.Squeeze())", RAMP[0][0]),
        ("nn.SpatialUpSamplingNearest(2)", np.kron(np.array(RAMP[0][0]), np.ones((2, 2))).tolist()),
        # corners on corners: (4 - 1) * (2 - 1) + 4 = 7 places, halves between the pixels
        ("nn.SpatialUpSamplingBilinear(2)", [[1 + 2 * y + x / 2 for x in range(7)] for y in range(7)]),
        ("nn.Sequential():add(nn.Abs()):add(nn.Sqrt()):add(nn.Square()):add(nn.Power(1))", RAMP[0][0]),
    ],
)  # fmt: skip
def test_a_module_makes_what_torch7_makes(tmp_path: Path, lua: str, expected: Any) -> None:
    made = apply(tmp_path, lua, RAMP)
    made = made[0, 0] if made.ndim - np.ndim(expected) == 2 else made[0]
    assert np.allclose(np.squeeze(made), np.squeeze(expected), atol=1e-5)


def test_activations(tmp_path: Path) -> None:
    x = np.array([-3.0, -0.5, 0.0, 0.5, 7.0])
    expected = {
        "nn.ReLU()": x.clip(0), "nn.ReLU6()": x.clip(0, 6), "nn.LeakyReLU(0.1)": np.where(x > 0, x, 0.1 * x),
        "nn.PReLU()": np.where(x > 0, x, 0.25 * x), "nn.ELU(2)": np.where(x > 0, x, 2 * (np.exp(x) - 1)),
        "nn.Tanh()": np.tanh(x), "nn.Sigmoid()": 1 / (1 + np.exp(-x)), "nn.SoftPlus(2)": np.log1p(np.exp(2 * x)) / 2,
        "nn.SoftMax()": np.exp(x) / np.exp(x).sum(), "nn.LogSoftMax()": x - np.log(np.exp(x).sum()),
        "nn.Dropout(0.5)": x, "nn.HardTanh()": x.clip(-1, 1), "nn.Identity()": x,
    }  # fmt: skip
    for lua, values in expected.items():
        assert np.allclose(apply(tmp_path, lua, x[None]), values, atol=1e-6), lua
        if "oftM" not in lua and "Soft" not in lua:
            assert np.allclose(apply(tmp_path, lua, x.reshape(1, 5, 1, 1))[0, :, 0, 0], values, atol=1e-6), lua
    for lua in ("nn.SoftMax()", "nn.SpatialSoftMax()"):  # over the channels
        made = apply(tmp_path, lua, np.stack([x, -x])[None, :, :, None])
        assert np.allclose(made[0, 0, :, 0], 1 / (1 + np.exp(-2 * x)), atol=1e-6), lua


def test_local_response_normalisation_across_channels(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(1, 7, 2, 2)) * 10
    expected = np.empty_like(x)
    for c in range(7):  # scale = k + alpha / size * the squares of the five channels around
        squares = np.square(x[:, max(c - 2, 0) : c + 3]).sum(1)
        expected[:, c] = x[:, c] / (2 + 1e-2 / 5 * squares) ** 0.75
    assert np.allclose(apply(tmp_path, "nn.SpatialCrossMapLRN(5, 1e-2, 0.75, 2)", x), expected, rtol=1e-5)


def test_branches_of_several_sizes_are_centred_in_zeros(tmp_path: Path) -> None:
    """As the comment in DepthConcat.lua has it: 4x4 and 1x1 give one pad before and two after the smaller."""
    made = apply(tmp_path, "nn.DepthConcat(2):add(nn.Identity()):add(nn.SpatialMaxPooling(4, 4))", RAMP)
    assert np.array_equal(made[0, 0], RAMP[0][0])
    assert np.array_equal(made[0, 1], [[0] * 4, [0, 16, 0, 0], [0] * 4, [0] * 4])
    joined = apply(tmp_path, "nn.Concat(2):add(nn.Identity()):add(nn.MulConstant(-1))", RAMP)
    assert np.array_equal(joined[0, 1], -np.array(RAMP[0][0]))


def test_tables(tmp_path: Path) -> None:
    two = "nn.ConcatTable():add(nn.Identity()):add(nn.MulConstant(3))"
    for table, factor in {
        "nn.CAddTable()": 4,
        "nn.CSubTable()": -2,
        "nn.SelectTable(2)": 3,
        "nn.SelectTable(-1)": 3,
    }.items():
        made = apply(tmp_path, f"nn.Sequential():add({two}):add({table})", RAMP)
        assert np.allclose(made[0, 0], factor * np.array(RAMP[0][0])), table
    nested = f"nn.Sequential():add(nn.ConcatTable():add({two}):add(nn.Identity()))"
    made = apply(tmp_path, f"{nested}:add(nn.FlattenTable()):add(nn.NarrowTable(2, 2)):add(nn.JoinTable(1, 3))", RAMP)
    assert made.shape == (1, 2, 4, 4) and np.allclose(made[0, 0], 3 * made[0, 1])
    parallel = (
        f"nn.Sequential():add({two}):add(nn.ParallelTable():add(nn.Identity()):add(nn.Square())):add(nn.CMulTable())"
    )
    assert np.allclose(apply(tmp_path, parallel, RAMP), 9 * np.array(RAMP) ** 3)


def test_a_full_convolution_with_adjustment_is_the_transpose_by_hand(tmp_path: Path) -> None:
    """Each input pixel adds its kernel at stride 2; a padding of 1 is cut off, and one more row and column are kept."""
    lua = """local m = nn.SpatialFullConvolution(1, 1, 3, 3, 2, 2, 1, 1, 1, 1)
    for y = 1, 3 do for x = 1, 3 do m.weight[1][1][y][x] = 3 * y + x end end
    m.bias:fill(0.5)
    return {model = m}"""
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    kernel = 3 * np.arange(1, 4)[:, None] + np.arange(1, 4)
    whole = np.zeros((6, 6))
    for i in range(2):
        for j in range(2):
            whole[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += x[i, j] * kernel
    assert np.allclose(apply(tmp_path, lua, x[None, None])[0, 0], whole[1:5, 1:5] + 0.5)


def test_convolutions_with_groups_dilation_and_no_bias(tmp_path: Path) -> None:
    import torch
    from torch.nn import functional as F

    x = torch.randn(2, 4, 7, 9)
    for lua, more in {
        "nn.SpatialConvolution(4, 6, 3, 2, 2, 1, 1, 0, 2)": {"stride": (1, 2), "padding": (0, 1)},  # nn has no groups
        "cudnn.SpatialConvolution(4, 6, 3, 2, 2, 1, 1, 0, 2)": {"stride": (1, 2), "padding": (0, 1), "groups": 2},
        "nn.SpatialConvolution(4, 6, 3, 2):noBias()": {},
        "nn.SpatialConvolutionMM(4, 6, 3, 2, 1, 1, 1)": {"padding": 1},  # padH is padW where it is left out
        "nn.SpatialDilatedConvolution(4, 6, 3, 2, 1, 1, 0, 0, 2, 3)": {"dilation": (3, 2)},
    }.items():
        model = build(tmp_path, f"require 'cudnn' return {{model = {lua}}}", (4, 7, 9)).model
        weight, bias = model.weight, model.bias
        assert weight.shape == (6, 4 // more.get("groups", 1), 2, 3) and (bias is None) == ("noBias" in lua)
        assert torch.allclose(model(x), F.conv2d(x, weight, bias, **more), atol=1e-6), lua


def test_start_values_are_torch7s(tmp_path: Path) -> None:
    """Uniform within 1/sqrt(fan in); after reset(s), of standard deviation s; batch normalisation's weights within 0 and 1."""
    lua = """local net = nn.Sequential()
    net:add(nn.Linear(100, 300)):add(nn.BatchNormalization(300)):add(nn.Linear(300, 100):reset(0.5))
    net:add(nn.PReLU(100)):add(nn.SpatialFullConvolution(64, 2, 5, 5))
    return {model = net}"""
    linear, norm, reset, prelu, full = build(tmp_path, lua).model
    for parameter, bound in ((linear.weight, 0.1), (linear.bias, 0.1), (full.weight, 1 / 40), (norm.weight, 1)):
        assert 0.95 * bound < parameter.abs().max() <= bound
    assert norm.weight.min() >= 0 and norm.bias.abs().max() == 0 and prelu.weight.unique().tolist() == [0.25]
    assert float(reset.weight.detach().std()) == pytest.approx(0.5, rel=0.02)
    assert float(linear.weight.detach().std()) == pytest.approx(0.1 / 3**0.5, rel=0.02)


def test_what_a_file_does_to_its_weights_is_done(tmp_path: Path) -> None:
    lua = """local block = nn.Sequential():add(nn.SpatialConvolution(3, 8, 5, 5)):add(nn.ReLU(true))
    block:get(1).weight:fill(2):mul(3):add(1):div(2)
    local net = nn.Sequential():add(block:clone()):add(block:clone())
    for _, m in pairs(net:findModules('nn.SpatialConvolution')) do m.bias:zero() end
    net:get(2):get(1).bias:copy(torch.Tensor({1, 2, 3, 4, 5, 6, 7, 8}))
    net:insert(nn.Linear(50, 40), 1)
    net:get(1).weight:normal(0, math.sqrt(2 / 50))
    net:add(nn.Linear(2, 2)):get(4).weight[2]:fill(9)
    net:remove(3)
    net:insert(block, 3)
    net:get(2):get(1).weight = torch.Tensor(8, 3, 5, 5):fill(4)
    local w = net:get(4):getParameters()
    w:uniform(3, 4)
    torch.setdefaulttensortype('torch.FloatTensor')
    return {model = net:cuda():float(), loss = nn.AbsCriterion():cuda()}"""
    loaded = build(tmp_path, lua)
    net = loaded.model
    assert [type(each).__name__ for each in net] == ["Linear", "Sequential", "Sequential", "Linear"]
    assert float(net[0].weight.detach().std()) == pytest.approx(0.2, rel=0.1)
    assert net[1][0].weight.unique().tolist() == [4] and net[2][0].weight.unique().tolist() == [3.5]
    assert net[1][0].bias.abs().max() == 0 != net[2][0].bias.abs().max()
    for parameter in net[3].parameters():
        assert parameter.min() >= 3 and parameter.max() < 4
    assert type(loaded.loss).__name__ == "L1Loss"


def test_criterions_and_their_gradients(tmp_path: Path) -> None:
    import torch
    from multiseg_torch.losses import over_labels

    numbers = np.random.default_rng(1)
    x, y = numbers.normal(size=(2, 1, 3, 3)) * 2, numbers.normal(size=(2, 1, 3, 3))
    d = x - y
    small = np.abs(d) < 1
    p, t = 1 / (1 + np.exp(-x)), (y > 0).astype(float)
    cases = {  # value, and gradient by the input
        "nn.SmoothL1Criterion()": (np.where(small, d**2 / 2, np.abs(d) - 0.5).mean(), np.where(small, d, np.sign(d)) / 18, x, y),
        "nn.AbsCriterion()": (np.abs(d).mean(), np.sign(d) / 18, x, y),
        "nn.MSECriterion()": ((d**2).mean(), 2 * d / 18, x, y),
        "nn.MSECriterion(false)": ((d**2).sum(), 2 * d, x, y),
        "nn.BCECriterion()": (-(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(), (p - t) / (p * (1 - p)) / 18, p, t),
        "nn.MultiCriterion():add(nn.MSECriterion(), 0.5):add(nn.AbsCriterion())":
            ((d**2).mean() / 2 + np.abs(d).mean(), (d + np.sign(d)) / 18, x, y),
    }  # fmt: skip
    for lua, (value, gradient, given, labels) in cases.items():
        output = torch.tensor(given, dtype=torch.float32, requires_grad=True)
        loss = build(tmp_path, f"return {{model = nn.Identity(), loss = {lua}}}").loss
        made = over_labels(loss)(output, torch.tensor(labels, dtype=torch.float32))
        made.backward()
        assert float(made.detach()) == pytest.approx(value, rel=1e-5), lua
        assert np.allclose(output.grad, gradient, atol=1e-6), lua
    field = build(
        tmp_path, "local c = nn.MSECriterion() c.sizeAverage = false return {model = nn.Identity(), loss = c}"
    )
    assert field.loss.reduction == "sum"


@pytest.mark.parametrize("places", [(), (2, 3)])
def test_class_numbers_count_from_0_for_images_and_for_pixels(tmp_path: Path, places: tuple[int, ...]) -> None:
    import torch
    from multiseg_torch.losses import over_labels

    numbers = np.random.default_rng(2)
    scores = numbers.normal(size=(4, 3, *places))
    classes = numbers.integers(0, 3, (4, *places))
    labels = torch.tensor(classes, dtype=torch.float32).reshape(4, 1, *(places or (1, 1)))
    log = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    picked = np.take_along_axis(log, classes[:, None], 1)[:, 0]
    weights = np.array([1.0, 2.0, 5.0])
    spatial = "Spatial" if places else ""
    cases = {
        f"nn.{spatial}CrossEntropyCriterion()": (scores, -picked.mean()),
        f"nn.{spatial}ClassNLLCriterion()": (log, -picked.mean()),
        f"nn.{spatial}ClassNLLCriterion(nil, false)": (log, -picked.sum()),
        f"nn.{spatial}CrossEntropyCriterion(torch.Tensor({{1, 2, 5}}))":
            (scores, -(picked * weights[classes]).sum() / weights[classes].sum()),
    }  # fmt: skip
    for lua, (output, expected) in cases.items():
        loss = build(tmp_path, f"return {{model = nn.Identity(), loss = {lua}}}").loss
        made = over_labels(loss)(torch.tensor(output, dtype=torch.float32), labels)
        assert float(made) == pytest.approx(expected, rel=1e-5), lua


def test_cuda_s_packages_are_missing_for_those_who_ask_and_nn_for_those_who_insist(tmp_path: Path) -> None:
    asks = "if pcall(function() require('cudnn') end) then error('there is none') end\n"
    asks += "if pcall(require, 'cunn') or cutorch then error('nor this') end\nreturn {model = nn.ReLU()}"
    assert type(build(tmp_path, asks).model).__name__ == "ReLU"
    insists = """require 'cunn' require 'cutorch' require 'cudnn'
    cudnn.fastest, cudnn.benchmark = true, true
    cutorch.setDevice(1)
    local net = nn.DataParallelTable(1):add(nn.Sequential():add(cudnn.SpatialConvolution(1, 2, 3, 3)):cuda(), {1, 2})
    assert(#net:findModules('cudnn.SpatialConvolution') == 1)
    return {model = net}"""
    assert [type(each).__name__ for each in build(tmp_path, insists).model] == ["Conv2d"]


def test_the_stride_of_an_average_pooling_is_1_in_nn_and_the_kernels_size_in_cudnn(tmp_path: Path) -> None:
    import torch

    rows = np.array(RAMP[0][0])
    expected = {
        "nn": (rows[:-1, :-1] + rows[1:, :-1] + rows[:-1, 1:] + rows[1:, 1:]) / 4,
        "cudnn": rows.reshape(2, 2, 2, 2).mean(axis=(1, 3)),
    }
    for package, values in expected.items():
        lua = f"require 'cudnn' return {{model = {package}.SpatialAveragePooling(2, 2)}}"
        model = build(tmp_path, lua, (1, 4, 4)).model
        assert np.allclose(model(torch.tensor(np.asarray(RAMP, np.float32))).numpy()[0, 0], values), package


def test_dropout_that_scales_in_inference(tmp_path: Path) -> None:
    """Version 1 of Dropout, and SpatialDropout: values are kept as they are in training, times 1 - p in inference."""
    import torch

    x = torch.rand(4, 8, 5, 5) + 1
    for lua in ("nn.Dropout(0.25, true)", "nn.SpatialDropout(0.25)"):
        model = build(tmp_path, f"return {{model = {lua}}}", (8, 5, 5)).model
        assert torch.allclose(model.eval()(x), 0.75 * x), lua
        kept = model.train()(x)
        assert torch.allclose(kept[kept != 0], x[kept != 0]) and 0.1 < (kept == 0).float().mean() < 0.4, lua
    model = build(tmp_path, "return {model = nn.Dropout(0.25)}", (8, 5, 5)).model
    assert torch.equal(model.eval()(x), x)
