"""Which parameter is which of another network: by map, structure, name or shape."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from helpers.exported import random_weights
from helpers.networks import layer, random_network, said_otherwise, seeds, topology
from helpers.reference_outputs import output
from multiseg.conversion.matching import ALL_OF_SOURCE, WHAT_FITS, match_parameters
from multiseg.conversion.parameters import ParameterSet
from multiseg.errors import ModelError, SettingsError
from multiseg.topology import Topology

Shapes = dict[str, tuple[int, ...]]

ONE: Shapes = {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv2.weight": (4, 8, 3, 3), "conv2.bias": (4,)}


def other(**names: str) -> Shapes:
    return {f"{names[name.partition('.')[0]]}.{name.partition('.')[2]}": shape for name, shape in ONE.items()}


def sides(source: Shapes, target: Shapes) -> tuple[ParameterSet, ParameterSet]:
    return ParameterSet("old.pt", source), ParameterSet("new.py", target)


def of(network: Topology) -> ParameterSet:
    return ParameterSet(network.source, network.weights, network)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_by_structure_the_other_network_computes_the_same(seed: int) -> None:
    layers = random_network(seed, most=6)
    one, two = topology(layers), topology(said_otherwise(layers, seed), "b.py")
    found = match_parameters(of(one), of(two))
    assert list(found.names) == list(two.weights) and set(found.names.values()) == set(one.weights)
    weights = random_weights(one)
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
    found = match_parameters(*sides(source, target))
    assert found.how == "shape" and list(found.names) == list(target)
    assert all(name == f"{names[own.partition('.')[0]]}.{own.partition('.')[2]}" for name, own in found.names.items())


def test_names_that_agree_are_taken_whatever_else_is_there() -> None:
    found = match_parameters(*sides({**ONE, "extra.weight": (8, 3, 3, 3)}, ONE))
    assert (found.names, found.how) == ({name: name for name in ONE}, "name")


def test_without_a_target_names_stay() -> None:
    side = ParameterSet("old.pt", ONE)
    assert match_parameters(side, None).names == {name: name for name in ONE}
    found = match_parameters(side, None, layer_map={"conv1": "first", "conv2.bias": "second.bias"})
    assert found.names == {
        "first.weight": "conv1.weight", "first.bias": "conv1.bias", "conv2.weight": "conv2.weight",
        "second.bias": "conv2.bias",
    }  # fmt: skip
    with pytest.raises(
        SettingsError, match=r"'conv1\.weight' cannot become 'conv2\.weight', which old\.pt has already"
    ):
        match_parameters(side, None, layer_map={"conv1": "conv2"})


def test_what_is_said_comes_first_and_the_rest_is_found() -> None:
    source: Shapes = {"a.weight": (4, 4), "b.weight": (4, 4), "c.weight": (2, 4)}
    target: Shapes = {"x.weight": (4, 4), "y.weight": (4, 4), "z.weight": (2, 4)}
    found = match_parameters(*sides(source, target), layer_map={"a": "y"})
    assert found.names == {"x.weight": "b.weight", "y.weight": "a.weight", "z.weight": "c.weight"}
    assert match_parameters(*sides(source, target), layer_map={"a": "x", "b.weight": "y.weight", "c": "z"}).how == "map"


def test_batch_normalisation_in_two_layers_is_mapped_by_part() -> None:
    one: Shapes = {"bn.weight": (4,), "bn.bias": (4,), "bn.running_mean": (4,), "bn.running_var": (4,)}
    two: Shapes = {"n.running_mean": (4,), "n.running_var": (4,), "s.weight": (4,), "s.bias": (4,)}
    with pytest.raises(ModelError, match=r"cannot tell which of its parameters is 'n\.running_mean' \(4,\) of new\.py"):
        match_parameters(*sides(one, two))
    found = match_parameters(*sides(one, two), layer_map={"bn": "n", "bn.weight": "s.weight", "bn.bias": "s.bias"})
    assert found.names["n.running_var"] == "bn.running_var" and found.names["s.bias"] == "bn.bias"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"conv": "a"}, r"map 'conv': old\.pt has no layer or parameter 'conv'; similar names: conv\d, conv\d"),
        ({"x": "a"}, r"map 'x': old\.pt has no layer or parameter 'x'; it has: conv1, conv2, conv1\.weight"),
        ({"conv1": "aa"}, r"map 'conv1': 'aa': new\.py has no layer 'aa'; similar names: a"),
        ({"conv1.bias": "a.bia"}, r"new\.py has no parameter 'a\.bia'; similar names: a\.bias"),
        ({"conv1": "a", "conv1.bias": "b.bias"}, r"map: 'conv1\.bias' is used twice"),
        (
            {"conv1": "a", "conv2.bias": "a.bias"},
            r"map: 'a\.bias' is specified twice, as 'conv1\.bias' and as 'conv2\.bias'",
        ),
    ],
)
def test_names_that_are_not_there_are_refused_with_near_ones(given: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        match_parameters(*sides(ONE, other(conv1="a", conv2="b")), layer_map=given)


def test_a_map_between_other_shapes_is_refused() -> None:
    with pytest.raises(
        ModelError,
        match=r"'conv1\.weight' has the shape \(8, 3, 3, 3\) in old\.pt, 'b\.weight' has \(4, 8, 3, 3\) in new\.py",
    ):
        match_parameters(*sides(ONE, other(conv1="a", conv2="b")), layer_map={"conv1": "b"})


def test_layers_with_parameters_of_different_names_are_refused() -> None:
    with pytest.raises(
        SettingsError, match="parameters of the two layers have different names, weight and bias; map them one"
    ):
        match_parameters(*sides({"a.weight": (2,)}, {"b.bias": (2,)}), layer_map={"a": "b"})


def test_several_that_fit_are_listed() -> None:
    source: Shapes = {"a.weight": (4, 4), "b.weight": (4, 4)}
    with pytest.raises(
        ModelError,
        match=r"old\.pt: cannot tell which of its parameters is 'x\.weight' \(4, 4\) of new\.py: candidates are a\.weight, "
        r"b\.weight; specify the network file of the weights \(source_network=FILE\), or specify the pairs, as in map=",
    ):
        match_parameters(*sides(source, {"x.weight": (4, 4), "y.weight": (4, 4)}))


def test_what_is_missing_or_reshaped_is_named() -> None:
    left = {name: shape for name, shape in ONE.items() if name != "conv2.weight"}
    with pytest.raises(
        ModelError, match=r"old\.pt: has no parameter of the shape \(4, 8, 3, 3\) for 'conv2\.weight' of new\.py"
    ):
        match_parameters(*sides(left, ONE))
    with pytest.raises(
        ModelError, match=r"'conv2\.weight' has the shape \(4, 8, 5, 5\), in new\.py it has \(4, 8, 3, 3\)"
    ):
        match_parameters(*sides({**ONE, "conv2.weight": (4, 8, 5, 5)}, ONE))


def test_networks_that_differ_are_refused_with_their_first_difference() -> None:
    def net(source: str, stride: int) -> Topology:
        said: dict[str, Any] = {"num_output": 4, "kernel_shape": [3, 3], "pads": [1] * 4, "strides": [stride] * 2}
        return topology([layer("a", "Conv", "data", **said), layer("b", "Relu", "a")], source)

    with pytest.raises(
        ModelError, match=r"one\.py and two\.py are not the same network: a: stride 1 in one\.py, 2 in two\.py"
    ):
        match_parameters(of(net("one.py", 1)), of(net("two.py", 2)))
    assert match_parameters(of(net("one.py", 1)), of(net("two.py", 2)), layer_map={"a": "a"}).how == "map"


def test_weights_that_the_sources_network_lacks_are_named() -> None:
    network = topology([layer("a", "Conv", "data", num_output=4, kernel_shape=[3, 3])])
    source = ParameterSet("old.pt", {"a.weight": (4, 3, 3, 3)}, network)
    with pytest.raises(ModelError, match=r"old\.pt: has no 'a\.bias', which a\.prototxt needs for 'a\.bias'"):
        match_parameters(source, of(network))


def test_dropout_does_not_matter() -> None:
    def net(*names: str, dropout: bool) -> Topology:
        layers = [layer(names[0], "Conv", "data", num_output=4, kernel_shape=[3, 3]), layer("relu", "Relu", names[0])]
        layers += [layer("drop", "Dropout", "relu", ratio=0.5)] if dropout else []
        return topology([*layers, layer(names[1], "Conv", layers[-1]["name"], num_output=4, kernel_shape=[1, 1])])

    found = match_parameters(of(net("a", "b", dropout=True)), of(net("c", "d", dropout=False)))
    assert found.names == {"c.weight": "a.weight", "c.bias": "a.bias", "d.weight": "b.weight", "d.bias": "b.bias"}


def test_what_leads_to_no_output_has_no_counterpart() -> None:
    conv = {"num_output": 4, "kernel_shape": [3, 3]}
    one = topology([layer("a", "Conv", "data", **conv)])
    two = topology([layer("aux", "Conv", "data", **conv), layer("b", "Conv", "data", **conv)])
    assert match_parameters(of(one), of(two)).names == {"b.weight": "a.weight", "b.bias": "a.bias"}


def test_what_fits_is_taken_and_the_rest_is_reported() -> None:
    """As a job's weights: a layer of another shape, one that is missing, one that is not needed."""
    source: Shapes = {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "score.weight": (21, 8, 1, 1), "old.bias": (2,)}
    target: Shapes = {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "score.weight": (2, 8, 1, 1), "new.bias": (2,)}
    found = match_parameters(*sides(source, target), WHAT_FITS)
    assert found.fitting == {"conv1.weight": "conv1.weight", "conv1.bias": "conv1.bias"} and found.how == "name"
    assert (found.reshaped, found.missing, found.unused) == (("score.weight",), ("new.bias",), ("old.bias",))


def test_what_fits_goes_by_structure_where_names_do_not_fit_and_by_name_where_networks_differ() -> None:
    def net(source: str, *names: str, stride: int = 1) -> Topology:
        params: dict[str, Any] = {"num_output": 3, "kernel_shape": [3, 3], "pads": [1] * 4}
        layers = [layer(names[0], "Conv", "data", strides=[stride] * 2, **params), layer("relu", "Relu", names[0])]
        return topology([*layers, layer(names[1], "Conv", "relu", **params)], source)

    one = of(net("one.py", "a", "b"))
    found = match_parameters(one, of(net("two.py", "b", "c")), WHAT_FITS)
    assert found.fitting == {"b.weight": "a.weight", "b.bias": "a.bias", "c.weight": "b.weight", "c.bias": "b.bias"}
    assert found.renamed == found.fitting and found.how == "structure"
    assert found.values == {"data": "data", "b": "a", "relu": "relu", "c": "b"}
    found = match_parameters(one, of(net("two.py", "b", "c", stride=2)), WHAT_FITS)
    assert found.fitting == {"b.weight": "b.weight", "b.bias": "b.bias"} and found.how == "name"
    assert found.missing == ("c.weight", "c.bias") and found.unused == ("a.weight", "a.bias")


def test_networks_are_not_described_where_names_and_shapes_fit() -> None:
    def describe() -> Topology:
        raise AssertionError

    found = match_parameters(ParameterSet("a", ONE, describe), ParameterSet("b", ONE, describe), WHAT_FITS)
    assert found.fitting == {name: name for name in ONE}


def test_all_of_the_source_is_found_in_an_exported_file_that_has_further_parameters() -> None:
    """As parity's sides: Caffe's batch normalisation is two layers, and a name has underscores."""
    conv: dict[str, Any] = {"num_output": 4, "kernel_shape": [1, 1]}
    one = topology([layer("block/1", "Conv", "data", **conv)])
    other = topology([layer("block_1", "Conv", "data", **conv), layer("more", "Conv", "block_1", **conv)])
    source = ParameterSet("one", {"block/1.weight": (4, 3, 1, 1), "bn.bias": (4,)}, one)
    target: Shapes = {"block_1.weight": (4, 3, 1, 1), "bn_scale.bias": (4, 1), "more.weight": (4, 4, 1, 1)}
    found = match_parameters(source, ParameterSet("two", target, other, exported=True), ALL_OF_SOURCE)
    assert found.names == {"block_1.weight": "block/1.weight", "bn_scale.bias": "bn.bias"}
    assert found.missing == ("more.weight",) and not found.unused and found.reshaped == ("bn_scale.bias",)
    del target["bn_scale.bias"]
    with pytest.raises(ModelError, match=r"two: cannot tell which of its parameters is which: .*not the same network"):
        match_parameters(source, ParameterSet("two", target, other, exported=True), ALL_OF_SOURCE)
