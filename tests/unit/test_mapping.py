"""Which parameter is which of another network: by map, structure, name or shape."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from networks import layer, random_network, said_otherwise, seeds, topology
from test_channels import output, weights_of

from multiseg.conversion.mapping import Side, mapped
from multiseg.errors import ModelError, SettingsError
from multiseg.topology import Topology

Shapes = dict[str, tuple[int, ...]]

ONE: Shapes = {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv2.weight": (4, 8, 3, 3), "conv2.bias": (4,)}


def other(**names: str) -> Shapes:
    return {f"{names[name.partition('.')[0]]}.{name.partition('.')[2]}": shape for name, shape in ONE.items()}


def sides(source: Shapes, target: Shapes) -> tuple[Side, Side]:
    return Side("old.pt", source), Side("new.py", target)


def of(network: Topology) -> Side:
    return Side(network.source, network.weights, network)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_by_structure_the_other_network_computes_the_same(seed: int) -> None:
    layers = random_network(seed, most=6)
    one, two = topology(layers), topology(said_otherwise(layers, seed), "b.py")
    found = mapped(of(one), of(two), {})
    assert list(found.names) == list(two.weights) and set(found.names.values()) == set(one.weights)
    weights = weights_of(one)
    images = np.random.default_rng(2).standard_normal((1, *one.input_shape))
    expected = output(one, weights, images)
    made = output(two, {name: weights[own] for name, own in found.names.items()}, images)
    np.testing.assert_allclose(made, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_by_shape_every_layer_is_found_among_different_ones(seed: int) -> None:
    choose = random.Random(seed)
    widths = choose.sample(range(2, 40), choose.randint(1, 8))
    source: Shapes = {}
    for number, (before, width) in enumerate(zip([1, *widths], widths, strict=False)):
        source |= {f"conv{number}.weight": (width, before, 3, 3), f"conv{number}.bias": (width,)}
    layers = [name.partition(".")[0] for name in source if name.endswith("weight")]
    names = dict(zip(layers, choose.sample([f"l{i}" for i in range(len(layers))], len(layers)), strict=True))
    renamed = {f"{names[name.partition('.')[0]]}.{name.partition('.')[2]}": shape for name, shape in source.items()}
    target = dict(choose.sample(list(renamed.items()), len(renamed)))
    found = mapped(*sides(source, target), {})
    assert found.how == "shape" and list(found.names) == list(target)
    assert all(name == f"{names[own.partition('.')[0]]}.{own.partition('.')[2]}" for name, own in found.names.items())


def test_names_that_agree_are_taken_whatever_else_is_there() -> None:
    found = mapped(*sides({**ONE, "extra.weight": (8, 3, 3, 3)}, ONE), {})
    assert (found.names, found.how) == ({name: name for name in ONE}, "name")


def test_without_a_target_names_stay() -> None:
    side = Side("old.pt", ONE)
    assert mapped(side, None, {}).names == {name: name for name in ONE}
    found = mapped(side, None, {"conv1": "first", "conv2.bias": "second.bias"})
    assert found.names == {
        "first.weight": "conv1.weight", "first.bias": "conv1.bias", "conv2.weight": "conv2.weight",
        "second.bias": "conv2.bias",
    }  # fmt: skip
    with pytest.raises(
        SettingsError, match=r"'conv1\.weight' cannot become 'conv2\.weight', which old\.pt has already"
    ):
        mapped(side, None, {"conv1": "conv2"})


def test_what_is_said_comes_first_and_the_rest_is_found() -> None:
    source: Shapes = {"a.weight": (4, 4), "b.weight": (4, 4), "c.weight": (2, 4)}
    target: Shapes = {"x.weight": (4, 4), "y.weight": (4, 4), "z.weight": (2, 4)}
    found = mapped(*sides(source, target), {"a": "y"})
    assert found.names == {"x.weight": "b.weight", "y.weight": "a.weight", "z.weight": "c.weight"}
    assert mapped(*sides(source, target), {"a": "x", "b.weight": "y.weight", "c": "z"}).how == "map"


def test_batch_normalisation_in_two_layers_is_mapped_by_part() -> None:
    one: Shapes = {"bn.weight": (4,), "bn.bias": (4,), "bn.running_mean": (4,), "bn.running_var": (4,)}
    two: Shapes = {"n.running_mean": (4,), "n.running_var": (4,), "s.weight": (4,), "s.bias": (4,)}
    with pytest.raises(
        ModelError, match=r"which of its weights are 'n\.running_mean' \(4,\) of new\.py cannot be told"
    ):
        mapped(*sides(one, two), {})
    found = mapped(*sides(one, two), {"bn": "n", "bn.weight": "s.weight", "bn.bias": "s.bias"})
    assert found.names["n.running_var"] == "bn.running_var" and found.names["s.bias"] == "bn.bias"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"conv": "a"}, r"map 'conv': old\.pt has no layer or parameter 'conv'; near it are: conv\d, conv\d"),
        ({"x": "a"}, r"map 'x': old\.pt has no layer or parameter 'x'; it has: conv1, conv2, conv1\.weight"),
        ({"conv1": "aa"}, r"map 'conv1': 'aa': new\.py has no layer 'aa'; near it are: a"),
        ({"conv1.bias": "a.bia"}, r"new\.py has no parameter 'a\.bia'; near it are: a\.bias"),
        ({"conv1": "a", "conv1.bias": "b.bias"}, r"map: 'conv1\.bias' is used twice"),
        (
            {"conv1": "a", "conv2.bias": "a.bias"},
            r"map: 'a\.bias' is given twice, as 'conv1\.bias' and as 'conv2\.bias'",
        ),
    ],
)
def test_names_that_are_not_there_are_refused_with_near_ones(given: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        mapped(*sides(ONE, other(conv1="a", conv2="b")), given)


def test_a_map_between_other_shapes_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"'conv1\.weight' is \(8, 3, 3, 3\) in old\.pt, 'b\.weight' is \(4, 8, 3, 3\) in new\.py"
    ):
        mapped(*sides(ONE, other(conv1="a", conv2="b")), {"conv1": "b"})


def test_layers_whose_weights_are_called_otherwise_are_mapped_one_by_one() -> None:
    with pytest.raises(SettingsError, match="their weights are called otherwise, weight and bias; map them one by one"):
        mapped(*sides({"a.weight": (2,)}, {"b.bias": (2,)}), {"a": "b"})


def test_several_that_fit_are_listed() -> None:
    source: Shapes = {"a.weight": (4, 4), "b.weight": (4, 4)}
    with pytest.raises(
        ModelError,
        match=r"old\.pt: which of its weights are 'x\.weight' \(4, 4\) of new\.py cannot be told: it may be a\.weight, "
        r"b\.weight; name the network file that the weights are of \(source_network=FILE\), or say which is which, as in map=",
    ):
        mapped(*sides(source, {"x.weight": (4, 4), "y.weight": (4, 4)}), {})


def test_what_is_missing_or_reshaped_is_named() -> None:
    left = {name: shape for name, shape in ONE.items() if name != "conv2.weight"}
    with pytest.raises(
        ModelError, match=r"old\.pt: has no weights of the shape \(4, 8, 3, 3\) for 'conv2\.weight' of new\.py"
    ):
        mapped(*sides(left, ONE), {})
    with pytest.raises(ModelError, match=r"'conv2\.weight' is \(4, 8, 5, 5\), in new\.py it is \(4, 8, 3, 3\)"):
        mapped(*sides({**ONE, "conv2.weight": (4, 8, 5, 5)}, ONE), {})


def test_networks_that_differ_are_refused_with_their_first_difference() -> None:
    def net(source: str, stride: int) -> Topology:
        said: dict[str, Any] = {"num_output": 4, "kernel_shape": [3, 3], "pads": [1] * 4, "strides": [stride] * 2}
        return topology([layer("a", "Conv", "data", **said), layer("b", "Relu", "a")], source)

    with pytest.raises(
        ModelError, match=r"one\.py and two\.py are not the same network: a: stride 1 in one\.py, 2 in two\.py"
    ):
        mapped(of(net("one.py", 1)), of(net("two.py", 2)), {})
    assert mapped(of(net("one.py", 1)), of(net("two.py", 2)), {"a": "a"}).how == "map"  # who says it all must know


def test_weights_that_the_sources_network_lacks_are_named() -> None:
    network = topology([layer("a", "Conv", "data", num_output=4, kernel_shape=[3, 3])])
    source = Side("old.pt", {"a.weight": (4, 3, 3, 3)}, network)
    with pytest.raises(ModelError, match=r"old\.pt: has no 'a\.bias', which a\.prototxt needs for 'a\.bias'"):
        mapped(source, of(network), {})


def test_dropout_does_not_matter() -> None:
    def net(*names: str, dropout: bool) -> Topology:
        layers = [layer(names[0], "Conv", "data", num_output=4, kernel_shape=[3, 3]), layer("relu", "Relu", names[0])]
        layers += [layer("drop", "Dropout", "relu", ratio=0.5)] if dropout else []
        return topology([*layers, layer(names[1], "Conv", layers[-1]["name"], num_output=4, kernel_shape=[1, 1])])

    found = mapped(of(net("a", "b", dropout=True)), of(net("c", "d", dropout=False)), {})
    assert found.names == {"c.weight": "a.weight", "c.bias": "a.bias", "d.weight": "b.weight", "d.bias": "b.bias"}


def test_what_leads_to_no_output_has_no_counterpart() -> None:
    conv = {"num_output": 4, "kernel_shape": [3, 3]}
    one = topology([layer("a", "Conv", "data", **conv)])
    two = topology([layer("aux", "Conv", "data", **conv), layer("b", "Conv", "data", **conv)])
    assert mapped(of(one), of(two), {}).names == {"b.weight": "a.weight", "b.bias": "a.bias"}
