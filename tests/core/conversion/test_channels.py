"""Weights for images whose colours are in the other order: computed in NumPy, the network makes the same of them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from helpers.exported import random_weights
from helpers.networks import layer, random_network, renamed, seeds, topology
from helpers.reference_outputs import output
from multiseg.conversion.channels import evident, swapped
from multiseg.errors import ModelError
from multiseg.topology import Topology

Array = np.ndarray[Any, Any]
CONV: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
# what may come before the first layer that mixes colours
BEFORE = (
    ("Scale", {"bias_term": True}), ("BatchNormalization", {}), ("BatchNormalization", {"affine": False}), ("Relu", {}),
    ("PRelu", {"num_parameters": 3}), ("PRelu", {"num_parameters": 1}), ("LRN", {"size": 3}), ("Mul", {"value": 0.5}),
    ("LRN", {"size": 3, "within_channel": True}), ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("Conv", {"num_output": 3, "group": 3, **CONV}), ("Conv", {"num_output": 6, "group": 3, **CONV}),
    ("Pad", {"pads": [1, 0, 0, 1], "mode": "constant"}), ("Softmax", {"axis": 1}),
)  # fmt: skip


def assert_same(network: Topology, makes_colours: bool = False) -> None:
    """That swapped weights make of swapped images what the weights make of images."""
    weights = random_weights(network)
    images = np.random.default_rng(1).standard_normal((2, *network.input_shape))
    expected = output(network, weights, images)
    assert np.abs(expected).max() > 0
    there = swapped(network, weights, input=True, output=makes_colours)
    made = output(network, there, images[:, ::-1])
    made = made[:, ::-1] if makes_colours else made
    # the same sums in another order, in float64
    np.testing.assert_allclose(made, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    back = swapped(network, there, input=True, output=makes_colours)
    np.testing.assert_equal(back, weights)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_it_computes_the_same_of_the_same_image(seed: int) -> None:
    choose = random.Random(seed)
    before = []
    for number, (kind, said) in enumerate(choose.choices(BEFORE, k=choose.randint(0, 3))):
        if said.get("group") and any(each["parameters"].get("num_output") == 6 for each in before):
            continue  # reads six channels
        if said.get("num_parameters") == 3 and any(each["parameters"].get("num_output") == 6 for each in before):
            continue
        if (
            kind == "LRN"
            and "within_channel" not in said
            and any("num_output" in each["parameters"] for each in before)
        ):
            continue  # refused behind several filters for each channel
        last = before[-1]["name"] if before else "data"
        before.append(layer(f"before{number}", kind, last, **said))
    rest = random_network(seed, most=4)
    last = before[-1]["name"] if before else "data"
    rest = [{**each, "inputs": [last if name == "data" else name for name in each["inputs"]]} for each in rest]
    assert_same(topology(renamed([*before, *rest], choose), shape=(3, 12, 12) if not before else (3, 24, 24)))


def test_a_dense_layer_over_the_image() -> None:
    flat = [
        layer("flat", "Flatten", "data"),
        layer("drop", "Dropout", "flat"),
        layer("fc", "Gemm", "drop", num_output=4),
    ]
    assert_same(topology(flat, shape=(3, 4, 5)))


def test_branches_that_read_the_image_together() -> None:
    layers = [
        layer("a", "Conv", "data", num_output=4, **CONV),
        layer("both", "Concat", "data", "a", axis=1),
        layer("b", "Conv", "both", num_output=2, **CONV),
    ]
    assert_same(topology(layers, shape=(3, 6, 6)))


def test_what_is_joined_with_colours_later_is_made_in_their_order() -> None:
    layers = [
        layer("a", "Conv", "data", num_output=6, **CONV),
        layer("twice", "Concat", "data", "data", axis=1),
        layer("sum", "Sum", "a", "twice"),
        layer("b", "Conv", "sum", num_output=2, **CONV),
    ]
    assert_same(topology(layers, shape=(3, 6, 6)))
    dense = [
        layer("flat", "Flatten", "data"),
        layer("a", "Conv", "data", num_output=1, kernel_shape=[4, 5]),
        layer("one", "Flatten", "a"),
        layer("fc", "Gemm", "one", num_output=60),
        layer("sum", "Sum", "fc", "flat"),
        layer("out", "Gemm", "sum", num_output=2),
    ]
    assert_same(topology(dense, shape=(3, 4, 5)))


def test_an_image_that_is_joined_flat_with_colours_is_refused() -> None:
    layers = [
        layer("flat", "Flatten", "data"),
        layer("a", "Conv", "data", num_output=3, **CONV),
        layer("other", "Flatten", "a"),
        layer("sum", "Sum", "other", "flat"),
        layer("out", "Gemm", "sum", num_output=2),
    ]
    with pytest.raises(ModelError, match=r"layer 'other' \(Flatten\)"):
        swapped(topology(layers, shape=(3, 4, 5)), random_weights(topology(layers, shape=(3, 4, 5))), True, False)


def test_images_that_are_made_of_images() -> None:
    residual = [
        layer("a", "Conv", "data", num_output=8, **CONV),
        layer("relu", "Relu", "a"),
        layer("b", "ConvTranspose", "relu", num_output=3, **CONV),
        layer("bn", "BatchNormalization", "b"),
        layer("sum", "Sum", "bn", "data"),
    ]
    assert_same(topology(residual, shape=(3, 6, 6)), makes_colours=True)
    dense = [
        layer("flat", "Flatten", "data"),
        layer("code", "Gemm", "flat", num_output=5),
        layer("fc", "Gemm", "code", num_output=48),
        layer("sigmoid", "Sigmoid", "fc"),
        layer("image", "Reshape", "sigmoid", shape=[3, 4, 4]),
    ]
    assert_same(topology(dense, shape=(3, 4, 4)), makes_colours=True)


def test_images_without_three_channels_stay() -> None:
    network = topology([layer("a", "Conv", "data", num_output=3, **CONV)], shape=(1, 6, 6))
    weights = random_weights(network)
    np.testing.assert_equal(swapped(network, weights, input=True, output=False), weights)
    changed = swapped(network, weights, input=True, output=True)  # grey to colours
    np.testing.assert_array_equal(changed["a.weight"], weights["a.weight"][::-1])
    np.testing.assert_array_equal(changed["a.bias"], weights["a.bias"][::-1])


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (layer("odd", "Split", "data", outputs=["odd", "even"], axis=1, split=[1, 2]), r"layer 'odd' \(Split\)"),
        (layer("odd", "Transpose", "data", perm=[0, 2, 1, 3]), r"layer 'odd' \(Transpose\)"),
        (layer("odd", "LRN", "data", size=2), r"layer 'odd' \(LRN\)"),
        ({**layer("odd", "tf.Mystery", "data"), "shapes": [(3, 6, 6)]}, r"layer 'odd' \(tf.Mystery\)"),
        (layer("odd", "Slice", "data", axes=[1], starts=[0], ends=[2]), r"layer 'odd' \(Slice\)"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(before: dict[str, Any], why: str) -> None:
    network = topology([before, layer("a", "Conv", "odd", num_output=2, kernel_shape=[1, 1])], shape=(3, 6, 6))
    with pytest.raises(
        ModelError, match=rf"a\.prototxt: cannot follow the order of the colours through {why}; convert"
    ):
        swapped(network, random_weights(network), input=True, output=False)


def test_an_output_that_would_be_reversed_with_the_input_is_refused() -> None:
    network = topology([layer("scale", "Scale", "data")], shape=(3, 6, 6))
    with pytest.raises(ModelError, match="the channels of 'scale' would be reversed too"):
        swapped(network, random_weights(network), input=True, output=False)


def test_weights_that_are_used_twice_are_refused() -> None:
    network = topology(
        [layer("a", "Conv", "data", num_output=3, **CONV), layer("a_1", "Conv", "a", num_output=3, **CONV)]
    )
    weights = {name: value for name, value in random_weights(network).items() if not name.startswith("a_1")}
    with pytest.raises(ModelError, match=r"uses the weights 'a_1\.weight' in several places"):
        swapped(network, weights, input=True, output=False)


def test_what_leads_to_no_output_is_not_needed() -> None:
    network = topology(
        [layer("aux", "Conv", "data", num_output=2, **CONV), layer("a", "Conv", "data", num_output=2, **CONV)]
    )
    weights = {name: value for name, value in random_weights(network).items() if name.startswith("a.")}
    found = swapped(network, weights, input=True, output=False)
    np.testing.assert_array_equal(found["a.weight"], weights["a.weight"][:, ::-1])


def test_without_a_network_one_convolution_that_reads_colours_is_evident() -> None:
    weights = {"a.weight": np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3), "a.bias": np.ones(4, np.float32)}
    more = {"b.weight": np.ones((2, 4, 3, 3), np.float32), "fc.weight": np.ones((5, 6), np.float32)}
    found = evident("w", {**weights, **more})
    np.testing.assert_array_equal(found["a.weight"], weights["a.weight"][:, ::-1])
    np.testing.assert_equal({name: found[name] for name in more}, more)
    np.testing.assert_equal(evident("w", more), more)


@pytest.mark.parametrize(
    "shapes",
    [
        {"a.weight": (4, 3, 3, 3), "b.weight": (3, 4, 3, 3)},  # two that may read or make colours
        {"a.weight": (4, 1, 3, 3), "up.weight": (4, 3, 3, 3), "up.bias": (3,)},  # a deconvolution
        {"scale.weight": (3,), "a.weight": (4, 3, 3, 3)},
        {"a.weight": (3, 3, 3, 3)},
        {"a.weight": (4, 3, 3, 3)},  # without a bias it may be a deconvolution's, too
        {"fc.weight": (4, 48)},
    ],
)
def test_without_a_network_what_is_not_evident_is_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(
        ModelError, match=r"w: cannot tell which weights take the colour channels .*source_network=FILE"
    ):
        evident("w", weights)
