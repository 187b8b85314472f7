"""How the difference of two networks is told."""

from __future__ import annotations

import copy
import random
from typing import Any

from hypothesis import given, settings

from helpers.networks import ACTIVATIONS, Node, fcn, layer, random_network, renamed, said_otherwise, seeds, topology
from multiseg.errors import ModelError
from multiseg.topology import Topology

KEEPS_SHAPE = (*ACTIVATIONS, "Dropout", "LRN", "BatchNormalization", "LeakyRelu", "Softmax")


def differences(one: list[Node], other: list[Node], shape: tuple[int, ...] = (1, 32, 32)) -> list[str]:
    return list(topology(one, shape=shape).diff(topology(other, "b.lua", shape)))


def changed(index: int, layers: list[Node] | None = None, **more: Any) -> list[Node]:
    layers = copy.deepcopy(layers or fcn())
    layers[index]["parameters"].update(more)
    return layers


def without(name: str, layers: list[Node]) -> list[Node]:
    """The network with a layer left out: what read it reads what that read."""
    gone = next(node for node in layers if node["name"] == name)
    kept = [copy.deepcopy(node) for node in layers if node["name"] != name]
    for node in kept:
        node["inputs"] = [gone["inputs"][0] if each == name else each for each in node["inputs"]]
    return kept


def test_a_parameter() -> None:
    assert differences(fcn(), fcn(8)) == ["conv2: stride 16 in a.prototxt, 8 in b.lua"]
    assert differences(fcn(), changed(2, num_output=512)) == ["conv2: filters 1024 in a.prototxt, 512 in b.lua"]
    assert differences(fcn(), changed(0, bias_term=False)) == ["conv1: with bias in a.prototxt, without in b.lua"]
    assert differences(fcn(), changed(0, kernel_shape=[5, 3], pads=[2, 1, 2, 1])) == [
        "conv1: kernel 3x3 in a.prototxt, 5x3 in b.lua",
        "conv1: pad 1 in a.prototxt, 2x1 in b.lua",
    ]


def test_a_missing_layer() -> None:
    shorter = without("relu1", fcn())
    assert differences(fcn(), shorter) == ["b.lua has no Relu after conv1 (relu1 in a.prototxt)"]
    assert differences(shorter, fcn()) == ["a.prototxt has no Relu after conv1 (relu1 in b.lua)"]
    first = [layer("scale", "Mul", "data", value=0.004), *fcn()]
    first[1]["inputs"] = ["scale"]
    assert differences(fcn(), first) == ["a.prototxt has no Mul after the input (scale in b.lua)"]


def test_another_connection() -> None:
    other = fcn()
    other[4]["inputs"] = ["conv2"]  # relu2 is still there, and nothing reads it
    assert differences(fcn(), other) == ["deconv reads relu2 in a.prototxt, conv2 in b.lua"]
    output = topology([*fcn()[:-1], layer("deconv", "Identity", "conv2")])
    assert list(topology(fcn()[:-1]).diff(output)) == ["output is relu2 in the first, conv2 in the second"]


def test_another_type_and_another_name() -> None:
    other = fcn()
    other[3] = layer("tanh", "Tanh", "conv2")
    other[4]["inputs"] = ["tanh"]
    assert differences(fcn(), other) == ["relu2 (tanh in b.lua): Relu in a.prototxt, Tanh in b.lua"]


def test_the_input_and_what_follows_from_it() -> None:
    one, other = topology(fcn(), shape=(1, 32, 32)), topology(fcn(), "b.lua", (3, 32, 32))
    assert list(one.diff(other)) == ["input: 1x32x32 in a.prototxt, 3x32x32 in b.lua"]
    same = [layer("c", "Conv", "data", num_output=2, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")]
    assert topology(same, shape=(1, 8, 8)).diff(topology(same, "b.lua", (1, 7, 7))).first == (
        "input: 1x8x8 in a.prototxt, 1x7x7 in b.lua"
    )
    assert len(topology(same, shape=(1, 8, 8)).diff(topology(same, "b.lua", (1, 7, 7)))) == 1


def test_padding_in_averages() -> None:
    said = {"kernel_shape": [3, 3], "pads": [1] * 4}
    one = [layer("pool", "AveragePool", "data", **said, count_include_pad=True)]
    other = [layer("pool", "AveragePool", "data", **said)]
    line = "pool: padding counts in the averages of a.prototxt, not in those of b.lua"
    assert differences(one, other) == [line]


def test_the_order_of_what_is_joined() -> None:
    a, b = (
        layer(name, "Conv", "data", num_output=2, kernel_shape=[k, k], pads=[k // 2] * 4)
        for name, k in (("a", 1), ("b", 3))
    )
    one, other = ([a, b, layer("join", "Concat", *order, axis=1)] for order in (("a", "b"), ("b", "a")))
    assert differences(one, other) == ["join reads a and b in a.prototxt, b and a in b.lua"]
    one, other = ([a, b, layer("join", "Sum", *order)] for order in (("a", "b"), ("b", "a")))
    assert differences(one, other) == []
    other = [a, b, layer("join", "Sub", "a", "b")]
    assert differences(one, other) == ["join reads a and b in a.prototxt, a and -1 times b in b.lua"]


def test_a_sum_that_another_sum_alone_reads_is_still_told_by_its_name() -> None:
    conv = {"num_output": 3, "kernel_shape": [1, 1]}
    one = [
        layer("a", "Conv", "data", **conv),
        layer("sum", "Sum", "data", "a"),
        layer("b", "Conv", "sum", **conv),
        layer("end", "Sum", "sum", "b"),
    ]
    other = copy.deepcopy(one)
    other[2]["inputs"] = ["a"]
    assert list(topology(one).diff(topology(other, "b.lua"))) == ["b reads sum in a.prototxt, a in b.lua"]


def test_losses_are_a_note() -> None:
    one, other = topology(fcn(), loss="L1", shape=(1, 32, 32)), topology(fcn(), "b.lua", (1, 32, 32), loss="MSE")
    found = one.diff(other)
    assert not found
    assert found.notes == ("losses are not compared: L1 in a.prototxt, MSE in b.lua",)
    assert str(found) == f"a.prototxt and b.lua hold the same network\n{found.notes[0]}"


def test_several_differences_come_in_the_order_of_the_layers() -> None:
    other = changed(3, without("relu1", fcn(8)), bias_term=False)
    other[2] = layer("relu2", "Sigmoid", "conv2")
    found = topology(fcn(), shape=(1, 32, 32)).diff(topology(other, "b.lua", (1, 32, 32)))
    assert list(found) == [
        "b.lua has no Relu after conv1 (relu1 in a.prototxt)",
        "conv2: stride 16 in a.prototxt, 8 in b.lua",
        "relu2: Relu in a.prototxt, Sigmoid in b.lua",
        "deconv: with bias in a.prototxt, without in b.lua",
    ]
    assert found.first == found.differences[0]
    assert str(found) == "\n".join(found)


WAYS = ("width", "stride", "pad", "group", "bias", "drop", "activation", "kernel")


def mutated(
    layers: list[Node], choose: random.Random, ways: tuple[str, ...] = WAYS
) -> tuple[str, Topology, list[Node]]:
    """One thing changed that can be: the name of the layer where, the network without the change, and the changed layers."""
    one = topology(layers)
    places = [(name, way) for name in one.shapes if name not in one.canonical.unused for way in ways]
    for name, way in choose.sample(places, len(places)):
        other = mutate(copy.deepcopy(layers), name, way, choose)
        try:
            if other:
                topology(other)
                return name, one, other
        except ModelError:  # a layer after it cannot take what is made now
            continue
    raise AssertionError("every network has something to change")


def mutate(layers: list[Node], name: str, way: str, choose: random.Random) -> list[Node] | None:
    """The layers with the one of this name changed in this way; None where that does not apply."""
    node = next((each for each in layers if each["name"] == name), None)
    if node is None:  # the input
        return None
    said, kind = node["parameters"], node["type"]
    if way == "width" and "num_output" in said:
        said["num_output"] += 4
    elif way == "stride" and kind in ("Conv", "ConvTranspose", "MaxPool"):
        said["strides"] = [said.get("strides", [1])[0] + 1] * 2
    elif way == "pad" and "pads" in said:
        said["pads"] = [pad + 1 for pad in said["pads"]]
    elif way == "group" and kind == "Conv":
        said["group"] = 1 if said.get("group") == 2 else 2
    elif way == "bias" and "num_output" in said:
        said["bias_term"] = not said.get("bias_term", True)
    elif way == "kernel" and kind == "Conv":
        said["kernel_shape"] = [said["kernel_shape"][0] + 1] * 2
    elif way == "activation" and kind in ACTIVATIONS:
        node["type"] = choose.choice([each for each in ACTIVATIONS if each != kind])
    elif way == "drop" and kind in KEEPS_SHAPE and node is not layers[-1]:
        return without(name, layers)
    elif way == "reads" and len(node["inputs"]) == 1:
        shapes = topology(layers).shapes
        earlier = list(shapes)[: list(shapes).index(name)]
        others = [each for each in earlier if shapes[each] == shapes[node["inputs"][0]] and each != node["inputs"][0]]
        if not others:
            return None
        node["inputs"] = [choose.choice(others)]
    else:
        return None
    return layers


@settings(max_examples=200, deadline=None)
@given(seeds, seeds)
def test_one_change_is_found_and_its_layer_named(seed: int, change: int) -> None:
    where, one, other = mutated(random_network(seed), random.Random(change), (*WAYS, "reads"))
    two = topology(other, "b.lua")
    assert one != two
    found = one.diff(two)
    assert found
    assert any(where in line for line in found), (where, list(found))


@settings(max_examples=100, deadline=None)
@given(seeds, seeds)
def test_one_change_is_found_under_other_names(seed: int, change: int) -> None:
    where, one, other = mutated(random_network(seed), random.Random(change))
    two = topology(renamed(other, random.Random(change)), "b.lua")
    assert one != two
    assert any(where in line for line in one.diff(two)), (where, list(one.diff(two)))


@settings(max_examples=100, deadline=None)
@given(seeds, seeds)
def test_one_change_is_found_in_other_words(seed: int, change: int) -> None:
    _, one, other = mutated(random_network(seed), random.Random(change), (*WAYS, "reads"))
    two = topology(said_otherwise(other, change), "b.lua")
    assert one != two
    assert one.diff(two)
