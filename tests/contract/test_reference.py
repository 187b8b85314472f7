"""The float64 reference against PyTorch's autograd in float64, and its bounds against what PyTorch makes in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.exported import Step, network, random_weights
from helpers.exported_layers import CASES, drawn
from multiseg import reference
from multiseg.errors import ModelError
from multiseg.exporting import files as exporting
from multiseg.topology import Topology

pytestmark = pytest.mark.needs("torch")

Array = np.ndarray[Any, Any]


def in_torch(topology: Topology, path: Path, weights: dict[str, Array], double: bool, training: bool) -> Any:
    """The network as an nn.Module with these weights."""
    import torch
    from multiseg_torch import files
    from multiseg_torch.weights import neutral_weights

    model = files.load(str(path), topology.input_shape).model
    model = (model.double() if double else model).train(training)
    for name, value in neutral_weights(model).items():
        value.copy_(torch.from_numpy(weights[name]))
    return model


def measured(
    topology: Topology, folder: Path, double: bool, training: bool, seed: int = 0
) -> tuple[Array, dict[str, Array]]:
    """Return output and gradients of sum(output * direction), by PyTorch."""
    import torch
    from multiseg_torch import weights

    path = exporting.export(topology, "torch", folder / "net.py")
    model = in_torch(topology, path, random_weights(topology), double, training)
    images, direction = (
        torch.from_numpy(each).to(torch.float64 if double else torch.float32) for each in data(topology)
    )
    # an answer in prediction is of one image: statistics of the batch are then those of the image
    output = model(images) if training else torch.cat([model(image[None]) for image in images])
    (output * direction.reshape(output.shape)).sum().backward()
    return output.detach().numpy(), {
        weights.neutral_name(name): each.grad.numpy()
        for name, each in model.named_parameters()
        if each.grad is not None
    }


def data(topology: Topology) -> tuple[Array, Array]:
    """Images, and the gradient of the output."""
    draw = np.random.default_rng(1)
    shape = topology.shapes[topology.outputs[0]]
    return tuple(draw.standard_normal((3, *each)).astype(np.float32) for each in (topology.input_shape, shape))  # type: ignore


def computed(topology: Topology, training: bool) -> tuple[reference.Bounded, dict[str, reference.Bounded]]:
    images, direction = data(topology)
    trace = reference.forward(topology, random_weights(topology), images, training=training)
    return trace.output, reference.backward(trace, reference.exact(direction))


def check(topology: Topology, folder: Path, training: bool = False) -> None:
    """Values of float64 agree; those of float32 lie within the bounds, and the bounds are no idle ones."""
    output, gradients = computed(topology, training)
    made, found = measured(topology, folder, True, training)
    assert set(gradients) == set(found)
    pairs = [(output, made), *[(gradients[name], found[name]) for name in gradients]]
    # the reference rounds a layer's numbers to float32, the epsilon of batch normalisation among them
    numbers = [value for layer in topology.layers for value in layer.parameters.values()]
    numbers += [1e-5 for layer in topology.layers if layer.type == "BatchNormalization"]
    single = any(isinstance(n, float) for value in numbers for n in (value if isinstance(value, list) else [value]))
    for ours, theirs in pairs:
        assert ours.value.shape == theirs.shape
        assert np.abs(ours.value - theirs).max() / max(1.0, np.abs(theirs).max()) <= (1e-7 if single else 1e-11)
    made, found = measured(topology, folder, False, training)
    pairs = [(output, made), *[(gradients[name], found[name]) for name in gradients]]
    for ours, theirs in pairs:
        assert (np.abs(ours.value - theirs) / (ours.bound + reference.bounded.TINY)).max() <= 1
    assert np.median(output.bound) <= 1e-4 * np.abs(output.value).max()


@pytest.mark.parametrize("case", [name for name, (_, known) in CASES.items() if "torch" in known])
def test_layers_and_their_gradients_are_those_of_autograd(case: str, tmp_path: Path) -> None:
    check(network(*CASES[case][0]), tmp_path)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_in_training_is_that_of_autograd(affine: bool, tmp_path: Path) -> None:
    steps = (
        ("Conv", {"num_output": 5, "kernel_shape": [3, 3]}),
        ("BatchNormalization", {"epsilon": 1e-3, "affine": affine}),
    )
    check(network(*steps, ("Relu", {}), ("Conv", {"num_output": 2, "kernel_shape": [3, 3]})), tmp_path, training=True)


FOUND_BY_REVIEW: dict[str, list[Step]] = {
    "leaky": [("LeakyRelu", {"alpha": 0.3})],
    "clip": [("Clip", {"min": -0.1, "max": 0.7})],
    "weighted": [("Sum", {"coefficients": [0.3, 0.3]}, ["first", "first"])],
    "down-to-odd": [("Resize", {"mode": "linear", "sizes": [11, 13], "coordinates": "half_pixel"})],
    "root-of-zero": [("Relu", {}), ("Pow", {"exponent": 1.5})],
    "mean-of-5": [("ReduceMean", {"axes": [1], "keepdims": True})],
}


@pytest.mark.parametrize("case", FOUND_BY_REVIEW)
def test_bounds_hold_where_numbers_are_not_exact_in_float32(case: str, tmp_path: Path) -> None:
    check(network(*FOUND_BY_REVIEW[case], shape=(5, 17, 24)), tmp_path)


def test_nearest_with_aligned_corners_rounds_half_up() -> None:
    """As TensorFlow does: of 4 pixels made into 7, each second lies in the middle."""
    topology = network(
        ("Resize", {"mode": "nearest", "sizes": [7, 7], "coordinates": "align_corners"}), shape=(1, 4, 4)
    )
    image = np.arange(16.0).reshape(1, 1, 4, 4)
    made = reference.forward(topology, {"first.weight": np.ones(1)}, image).output.value[0, 0]
    assert np.array_equal(made[0], [0, 1, 1, 2, 2, 3, 3])


def test_random_windows_are_those_of_autograd(tmp_path: Path) -> None:
    compared = 0
    for seed in range(120, 180):
        topology = drawn(seed)
        try:
            if topology is not None:
                check(topology, tmp_path)
                compared += 1
        except ModelError:
            continue
    assert compared >= 25


@pytest.mark.parametrize("terms", [1, 10, 1000, 100_000])
def test_the_bound_of_a_sum_holds_and_is_near(terms: int) -> None:
    """Against sums of float32 one after the other, the least accurate order."""
    draw = np.random.default_rng(terms)
    a, b = draw.random((2, terms)).astype(np.float32)
    products = (a * b).astype(np.float32)
    added = np.cumsum(products, dtype=np.float32)[-1]
    error = abs(float(added) - np.dot(a.astype(np.float64), b.astype(np.float64)))
    assert error <= reference.gamma(terms) * np.dot(a.astype(np.float64), b.astype(np.float64))
    assert reference.gamma(terms) <= min(terms * 2.0**-24 * 1.01, 11 * np.sqrt(terms) * 2.0**-24)
