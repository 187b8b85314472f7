"""When two descriptions are of the same network."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings

from helpers.networks import fcn, layer, random_network, said_otherwise, seeds, topology
from multiseg.topology import Topology


@settings(max_examples=150, deadline=None)
@given(seeds, seeds)
def test_a_network_said_in_other_words_is_the_same(seed: int, words: int) -> None:
    layers = random_network(seed)
    one, other = topology(layers), topology(said_otherwise(layers, words), "b.lua")
    assert one == other, "\n".join(one.diff(other))
    assert hash(one) == hash(other)
    assert not one.diff(other)
    assert one.diff(other).first is None


@settings(max_examples=50, deadline=None)
@given(seeds, seeds)
def test_two_random_networks_are_equal_only_where_no_difference_is_named(seed: int, another: int) -> None:
    one, other = topology(random_network(seed)), topology(random_network(another), "b.lua")
    assert (one == other) == (not one.diff(other)) == (not other.diff(one))


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_to_json_is_the_topology(seed: int) -> None:
    one = topology(random_network(seed))
    again = Topology.of(one.source, one.kind, one.to_json())
    assert again == one
    assert again.to_json() == one.to_json()


def same(one: list[dict[str, Any]], other: list[dict[str, Any]], shape: tuple[int, ...] = (4, 8, 8)) -> bool:
    return topology(one, shape=shape) == topology(other, shape=shape)


def pool(type: str = "MaxPool", kernel: int = 3, stride: int = 2, **more: Any) -> list[dict[str, Any]]:
    return [layer("pool", type, "data", kernel_shape=[kernel] * 2, strides=[stride] * 2, **more)]


def test_tensorflows_same_is_caffes_rounding_up_where_it_is() -> None:
    # 8 pixels, 3/2: both start at pixel 0 and end one beyond the last
    assert same(pool(auto_pad="SAME_UPPER"), pool(ceil_mode=True))
    assert not same(pool(), pool(ceil_mode=True))  # 3 windows, not 4
    # 7 pixels: SAME pads one on each side, rounding up pads none
    assert not same(pool(auto_pad="SAME_UPPER"), pool(ceil_mode=True), (4, 7, 7))
    assert same(pool(), pool(ceil_mode=True), (4, 7, 7))


def padded_pool(type: str, borders: list[int], value: float, **more: Any) -> list[dict[str, Any]]:
    before = layer("pad", "Pad", "data", pads=borders, mode="constant", value=value)
    return [before, layer("pool", type, "pad", kernel_shape=[3, 3], strides=[2, 2], **more)]


def test_padding_before_a_pooling_is_its_own_where_it_does_the_same() -> None:
    nothing = float("-inf")
    assert same(padded_pool("MaxPool", [0, 0, 1, 1], nothing), pool(ceil_mode=True))
    assert same(padded_pool("MaxPool", [1, 1, 1, 1], nothing), pool(pads=[1] * 4))
    assert not same(padded_pool("MaxPool", [1, 1, 1, 1], 0.0), pool(pads=[1] * 4))  # a maximum may be below 0
    assert same(padded_pool("MaxPool", [0, 0, 1, 1], nothing), [layer("all", "GlobalMaxPool", "data")], (4, 3, 3))
    counted = pool("AveragePool", pads=[1] * 4, count_include_pad=True)
    assert same(padded_pool("AveragePool", [1, 1, 1, 1], 0.0), counted)
    assert not same(padded_pool("AveragePool", [1, 1, 1, 1], 0.0), pool("AveragePool", pads=[1] * 4))
    assert not same(padded_pool("AveragePool", [1, 1, 1, 1], 1.0), counted)
    assert not same(padded_pool("AveragePool", [1, 1, 1, 1], 0.0, pads=[1] * 4), counted)


def test_a_negation_is_a_product_and_a_square_root_a_power() -> None:
    assert same([layer("it", "Neg", "data")], [layer("it", "Mul", "data", value=-1.0)])
    assert same([layer("it", "Neg", "data")], [layer("it", "Mul", "data", value=-1)])
    assert same([layer("it", "Neg", "data")], [layer("it", "Sum", "data", coefficients=[-1])])
    assert not same([layer("it", "Neg", "data")], [layer("it", "Mul", "data", value=-2.0)])
    assert same([layer("it", "Sqrt", "data")], [layer("it", "Pow", "data", exponent=0.5)])


def test_padding_below_that_no_window_reads_does_not_matter() -> None:
    conv = {"num_output": 2, "kernel_shape": [3, 3], "strides": [2, 2]}
    one = [layer("conv", "Conv", "data", **conv, pads=[1, 1, 1, 1])]
    assert same(one, [layer("conv", "Conv", "data", **conv, pads=[1, 1, 0, 0])])
    assert not same(one, [layer("conv", "Conv", "data", **conv, auto_pad="SAME_UPPER")])  # 0 above, 1 below
    assert same(one, [layer("conv", "Conv", "data", **conv, auto_pad="SAME_UPPER")], (4, 7, 7))


def test_averages_that_count_padding_are_others_where_there_is_padding() -> None:
    counts, leaves = ({"pads": [1] * 4, "count_include_pad": flag} for flag in (True, False))
    assert not same(pool("AveragePool", 3, 1, **counts), pool("AveragePool", 3, 1, **leaves))
    assert same(pool("AveragePool", count_include_pad=True), pool("AveragePool", count_include_pad=False))
    # what rounding up adds is never counted: TensorFlow's SAME on 8 pixels is Caffe's 3/2 without padding
    assert same(pool("AveragePool", auto_pad="SAME_UPPER"), pool("AveragePool", ceil_mode=True, count_include_pad=True))


@pytest.mark.needs("torch")
def test_average_poolings_are_equal_exactly_where_torch_computes_the_same() -> None:
    import torch

    image = torch.linspace(1, 2, 4 * 7 * 8, dtype=torch.float64).sin().reshape(1, 4, 7, 8)
    found = {}
    for kernel, stride, pad, up, counts in itertools.product(
        (1, 2, 3), (1, 2, 3), (0, 1), (False, True), (False, True)
    ):
        if pad * 2 > kernel or (up and stride > kernel):  # rounding up to windows beyond the image: no two agree on it
            continue
        said = {"pads": [pad] * 4, "ceil_mode": up, "count_include_pad": counts}
        result = torch.nn.functional.avg_pool2d(image, kernel, stride, pad, up, counts)
        net = topology(pool("AveragePool", kernel, stride, **said), shape=(4, 7, 8))
        assert net.shapes["pool"] == tuple(result.shape[1:])
        found[kernel, stride, pad, up, counts] = (net, result)
    for one, other in itertools.combinations(found.values(), 2):
        alike = one[1].shape == other[1].shape and bool(torch.allclose(one[1], other[1], atol=1e-12))
        assert (one[0] == other[0]) == alike, (one[0].layers, other[0].layers)


@pytest.mark.needs("torch")
def test_deconvolutions_are_equal_exactly_where_torch_computes_the_same() -> None:
    import torch

    image = torch.linspace(1, 2, 2 * 5 * 5, dtype=torch.float64).sin().reshape(1, 2, 5, 5)
    weight = torch.linspace(1, 2, 2 * 3 * 4 * 4, dtype=torch.float64).cos().reshape(2, 3, 4, 4)
    found = []
    for stride, pad, more, cut in itertools.product((1, 2, 3), (0, 1, 2), (0, 1), (0, 1)):
        if more >= stride:
            continue
        result = torch.nn.functional.conv_transpose2d(image, weight, stride=stride, padding=pad, output_padding=more)
        size = result.shape[2]
        if size <= 2 * cut:
            continue
        said = {"strides": [stride] * 2, "pads": [pad] * 4, "output_padding": [more] * 2, "bias_term": False}
        layers = [layer("up", "ConvTranspose", "data", num_output=3, kernel_shape=[4, 4], **said)]
        if cut:
            layers.append(layer("cut", "Slice", "up", axes=[2, 3], starts=[cut, cut], ends=[size - cut, size - cut]))
        found.append((topology(layers, shape=(2, 5, 5)), result[:, :, cut : size - cut, cut : size - cut]))
    for one, other in itertools.combinations(found, 2):
        alike = one[1].shape == other[1].shape and bool(torch.allclose(one[1], other[1], atol=1e-12))
        assert (one[0] == other[0]) == alike, (one[0].layers, other[0].layers)


def test_a_crop_takes_its_size_from_another_layer() -> None:
    up = {"num_output": 2, "kernel_shape": [4, 4], "strides": [2, 2]}
    down = layer("down", "MaxPool", "data", kernel_shape=[2, 2], strides=[2, 2])
    score = layer("score", "Conv", "data", num_output=2, kernel_shape=[1, 1])

    def cropped(offset: int) -> list[dict[str, Any]]:
        crop = layer("crop", "Crop", "up", "score", axis=2, offset=[offset])
        return [down, score, layer("up", "ConvTranspose", "down", **up), crop, layer("sum", "Sum", "crop", "score")]

    padded = [down, score, layer("up", "ConvTranspose", "down", **up, pads=[1] * 4), layer("sum", "Sum", "score", "up")]
    assert same(cropped(1), padded)
    assert not same(cropped(0), padded)


def test_a_deconvolution_read_twice_keeps_its_size() -> None:
    up = layer("up", "ConvTranspose", "data", num_output=4, kernel_shape=[2, 2], strides=[2, 2])
    cut = layer("cut", "Slice", "up", axes=[2, 3], starts=[4, 4], ends=[12, 12])
    both = [
        up,
        cut,
        layer("down", "MaxPool", "up", kernel_shape=[2, 2], strides=[2, 2]),
        layer("sum", "Sum", "cut", "down"),
    ]
    assert same(both, [both[0], both[2], both[1], both[3]])
    padded = [{**up, "parameters": {**up["parameters"], "pads": [4] * 4}}, *both[2:]]
    padded[-1] = layer("sum", "Sum", "up", "up")
    assert not same(both, [padded[0], padded[-1]])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([layer("a", "Add", "data", value=0.0), layer("r", "Relu", "a")], [layer("r", "Relu", "data")]),
        ([layer("a", "Mul", "data", value=1), layer("r", "Relu", "a")], [layer("r", "Relu", "data")]),
        ([layer("s", "Sum", "data", coefficients=[0.5])], [layer("m", "Mul", "data", value=0.5)]),
        ([layer("s", "Split", "data", outputs=["x", "y"], axis=1, split=[1, 3]), layer("r", "Relu", "y")],
         [layer("c", "Slice", "data", axes=[1], starts=[1], ends=[4]), layer("r", "Relu", "c")]),
        ([layer("r", "Resize", "data", mode="nearest", scales=[2.0, 2.0], coordinates="asymmetric")],
         [layer("r", "Resize", "data", mode="nearest", sizes=[16, 16], coordinates="half_pixel")]),
        ([layer("p", "MaxPool", "data", kernel_shape=[8, 8], strides=[8, 8])], [layer("p", "GlobalMaxPool", "data")]),
        ([layer("m", "ReduceMean", "data", axes=[-1, -2], keepdims=False)],
         [layer("p", "GlobalAveragePool", "data"), layer("f", "Flatten", "p")]),
        ([layer("r", "Reshape", "data", shape=[2, 16, 8]), layer("f", "Flatten", "r")], [layer("f", "Flatten", "data")]),
        ([layer("r", "Reshape", "data", shape=[256]), layer("b", "Reshape", "r", shape=[4, 8, 8]), layer("s", "Relu", "b")],
         [layer("s", "Relu", "data")]),
        ([layer("s", "Softmax", "data", axis=-3)], [layer("s", "Softmax", "data", axis=1)]),
        ([layer("d", "Dropout", "data", ratio=0.4), layer("x", "Relu", "d")],
         [layer("d", "Dropout", "data", ratio=0.4000000059604645), layer("x", "Relu", "d"), layer("q", "Identity", "x")]),
    ],
)  # fmt: skip
def test_ways_of_saying_the_same(one: list[Any], other: list[Any]) -> None:
    assert same(one, other), str(topology(one, shape=(4, 8, 8)).diff(topology(other, "b", (4, 8, 8))))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([layer("r", "Relu", "data"), layer("d", "Dropout", "r")], [layer("d", "Dropout", "data"), layer("r", "Relu", "d")]),
        ([layer("s", "Softmax", "data", axis=1)], [layer("s", "Softmax", "data", axis=2)]),
        ([layer("r", "Relu", "data"), layer("s", "Softmax", "r", axis=1)], [layer("r", "Relu", "data")]),
        ([layer("s", "LogSoftmax", "data", axis=1)], [layer("s", "Softmax", "data", axis=1)]),
        ([layer("r", "Relu", "data"), layer("s", "Sub", "data", "r")],
         [layer("r", "Relu", "data"), layer("s", "Sub", "r", "data")]),
        ([layer("r", "Resize", "data", mode="linear", sizes=[16, 16], coordinates="asymmetric")],
         [layer("r", "Resize", "data", mode="linear", sizes=[16, 16], coordinates="half_pixel")]),
        ([layer("p", "Pad", "data", pads=[1] * 4, value=1.0), layer("c", "Conv", "p", num_output=1, kernel_shape=[3, 3])],
         [layer("c", "Conv", "data", num_output=1, kernel_shape=[3, 3], pads=[1] * 4)]),
        ([layer("b", "BatchNormalization", "data", affine=False), layer("s", "Scale", "b", bias_term=False)],
         [layer("b", "BatchNormalization", "data")]),
        ([layer("r", "Reshape", "data", shape=[8, 4, 8])], [layer("r", "Transpose", "data", perm=[0, 2, 1, 3])]),
    ],
)  # fmt: skip
def test_what_is_not_the_same(one: list[Any], other: list[Any]) -> None:
    assert not same(one, other)
    assert topology(one, shape=(4, 8, 8)).diff(topology(other, "b", (4, 8, 8)))


def test_branches_are_told_apart_from_one_branch_read_twice() -> None:
    conv = {"num_output": 4, "kernel_shape": [1, 1]}
    a, b = layer("a", "Conv", "data", **conv), layer("b", "Conv", "data", **conv)
    twice = [a, layer("s", "Sum", "a", "a")]
    assert not same([a, b, layer("s", "Sum", "a", "b")], twice)
    assert same([a, b, layer("s", "Sum", "a", "b")], [b, a, layer("s", "Sum", "a", "b")])


def test_types_beyond_the_vocabulary_are_compared_by_all_that_is_said_of_them() -> None:
    def net(**more: Any) -> list[dict[str, Any]]:
        one = {"shapes": [[4, 8, 8]], "weights": {"weight": [4, 4]}, **more}
        return [{**layer("mine", "Mine", "data", depth=3), **one}]

    assert same(net(), net())
    assert not same(net(), net(weights={"weight": [4, 5]}))
    assert not same(net(), net(parameters={"depth": 4}))
    assert not same(net(), net(shapes=[[4, 8, 9]]))


def test_the_input_counts_and_the_loss_does_not() -> None:
    assert topology(fcn(), shape=(1, 32, 32)) != topology(fcn(), shape=(3, 32, 32))
    assert topology(fcn(), shape=(1, 32, 32), loss="L1") == topology(fcn(), shape=(1, 32, 32))
    assert topology(fcn(), shape=(1, 32, 32)) != "a network"


def test_a_thousand_layers() -> None:
    def chain(prefix: str, dropped: int = -1) -> list[dict[str, Any]]:
        layers, before = [], "data"
        for number in range(1000):
            if number != dropped:
                type, said = (("Conv", {"num_output": 4, "kernel_shape": [1, 1]}), ("Relu", {}), ("LRN", {"size": 3}))[
                    number % 3
                ]
                layers.append(layer(f"{prefix}{number}", type, before, **said))
                before = f"{prefix}{number}"
        return layers

    assert same(chain("a"), chain("b"))
    found = topology(chain("a")).diff(topology(chain("b", 500), "b.lua"))
    assert list(found) == ["b.lua has no LRN after b499 (a500 in a.prototxt)"]
