"""Convolutions and deconvolutions as matrix products: what they compute and learn is what it was, within float32's rounding.

Networks are drawn, written as each framework's source, and trained there with and without lowering. Bounds are those of the
float64 reference (multiseg.reference): they follow from the lengths of the sums that make each number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from helpers.exported import Array, Step, network, random_weights
from multiseg import backend as registry
from multiseg.exporting import files
from multiseg.layout import Layout
from multiseg.network import NetworkSpec
from multiseg.reference import Bounded, backward, forward, losses, solvers
from multiseg.topology import Topology
from multiseg.worker.client import Worker

SOLVER = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0}
LARGEST_WEIGHT = 1e6  # a training that diverges beyond it soon leaves float32
LARGEST = 24  # height and width of what a layer makes


@dataclass(frozen=True)
class Net:
    """A drawn network, how many images it trains on, and the layers that may be lowered."""

    topology: Topology
    count: int
    lowerable: tuple[str, ...]


@st.composite
def nets(draw: Any, groups: bool, windows: bool) -> Net:
    """One to four layers, of which one at least has a kernel of one stride, or, with ``windows``, of several."""
    channels, *size = shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 13), st.integers(1, 13)))
    steps: list[Step] = []
    lowerable = []
    kinds = draw(st.lists(st.sampled_from(["Conv", "ConvTranspose", "plain", "Relu", "Tanh"]), max_size=3))
    lowered = ["Conv", "ConvTranspose", *(["windows"] if windows else [])]
    kinds.insert(draw(st.integers(0, len(kinds))), draw(st.sampled_from(lowered)))
    for kind in kinds:
        name = f"l{len(steps)}"
        if kind in ("Relu", "Tanh"):
            steps.append((kind, {}))
            continue
        group = draw(st.sampled_from([each for each in (1, 2, 3) if channels % each == 0])) if groups else 1
        channels = group * draw(st.integers(1, 5 // group))
        said = {"num_output": channels, "group": group, "bias_term": draw(st.booleans())}
        if kind == "plain":
            steps.append(("Conv", {**said, "kernel_shape": [3, 3], "pads": [1] * 4}))
            continue
        if kind == "windows":
            strides, many, pads = (
                [draw(st.integers(low, high)) for _ in size] for low, high in ((2, 4), (2, 3), (0, 1))
            )
            extra = [draw(st.integers(0, pad)) for pad in pads]
            kernel = [times * stride for times, stride in zip(many, strides, strict=True)]
            grown = [
                (side - 1) * stride - 2 * pad + k + more
                for side, stride, pad, k, more in zip(size, strides, pads, kernel, extra, strict=True)
            ]
            if max(grown) <= LARGEST:
                size = grown
                placed = {"strides": strides, "pads": [*pads, *pads], "output_padding": extra}
                steps.append(("ConvTranspose", {**said, "group": 1, "kernel_shape": kernel, **placed}))
                lowerable.append(name)
                continue
            kind = "ConvTranspose"
        most = [side if kind == "Conv" else LARGEST // side for side in size]
        kernel = [draw(st.integers(1, min(6, each))) for each in most]
        size = [side // k if kind == "Conv" else side * k for side, k in zip(size, kernel, strict=True)]
        steps.append((kind, {**said, "kernel_shape": kernel, "strides": kernel}))
        lowerable.append(name)
    return Net(network(*steps, shape=shape), draw(st.integers(1, 5)), tuple(lowerable))


class Bench:
    """A worker of a backend that lowers whatever may be, and the network of a file in it."""

    def __init__(self, backend: str, folder: Path) -> None:
        declared = registry.get(backend)
        self.layout = Layout(declared.data_order, declared.channel_order, None, colours=False)
        # the default model's package travels to the worker: here the backend's own
        package = declared.module.partition(".")[0]
        eager = replace(declared, module=f"helpers.eager.of_{backend}", default_model=f"{package}:")
        self.backend, self.folder, self.worker = declared, folder, Worker(eager, threads=1)

    def load(self, topology: Topology, count: int, lowering: bool, **more: Any) -> dict[str, Any]:
        """Its new description; ``count`` images are a batch."""
        path = files.export(topology, self.backend.name, self.folder / f"net{self.backend.formats[0]}")
        spec = NetworkSpec(
            model=str(path), input_shape=topology.input_shape, label_shape=topology.shapes[topology.outputs[0]], loss="l2",
            solver=SOLVER, recipe="equal", batch_size=count, val_batch_size=count, seed=1, threads=1, device="cpu",
            lowering=lowering,
        )  # fmt: skip
        described: dict[str, Any] = self.worker.call("load", spec=replace(spec, **more).to_json())
        return described

    def batch(self, topology: Topology, count: int, seed: int) -> tuple[Array, Array]:
        """Images and labels (N, C, H, W)."""
        draw, shapes = np.random.default_rng(seed), (topology.input_shape, topology.shapes[topology.outputs[0]])
        images, labels = (draw.standard_normal((count, *shape)).astype(np.float32) for shape in shapes)
        return images, labels

    def call(self, method: str, images: Array, labels: Array | None, **more: Any) -> Any:
        features = self._arranged(images)
        return self.worker.call(
            method, features=features, labels=None if labels is None else self._arranged(labels), **more
        )

    def _arranged(self, array: Array) -> Array:
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1) if self.backend.data_order == "NHWC" else array)


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bench]]:
    found: dict[str, Bench] = {}
    yield found
    for bench in found.values():
        bench.worker.close()


def bench_of(benches: dict[str, Bench], backend: str, factory: pytest.TempPathFactory) -> Bench:
    """The backend's one worker."""
    if backend not in benches:
        benches[backend] = Bench(backend, factory.mktemp(backend))
    return benches[backend]


def check(made: Any, right: Bounded, what: str) -> None:
    off = np.abs(np.asarray(made, np.float64) - right.value)
    assert made.shape == right.value.shape and (off <= right.bound + 1e-30).all(), f"{what}: off by {off.max()}"


def check_predictions(bench: Bench, net: Net, weights: Mapping[str, Array]) -> None:
    """Outputs of several batch sizes, losses, and what each layer made of what it was given."""
    for count in (1, net.count + 1):
        images, labels = bench.batch(net.topology, count, count)
        output, loss, _ = bench.call("predict", images, labels)
        right = forward(net.topology, weights, images).output
        check(bench.layout.activation(output), right, f"the output of {count}")
        check(np.asarray(loss), losses.by_element("l2", right, labels)[0], f"the loss of {count}")
    output, _, made = bench.call("predict", images, None, activations=True)
    layers = forward(net.topology, weights, images).computed
    assert set(net.lowerable) <= set(made)
    for name in set(made) & set(layers):  # in TensorFlow some have names of its own
        check(bench.layout.activation(made[name]), layers[name], name)


def step(bench: Bench, net: Net, rule: solvers.Solver, seed: int, rate: float = 0.1) -> None:
    """One training step, whose loss and weights afterwards are the reference's from the weights before."""
    before = bench.worker.call("get_weights")
    images, labels = bench.batch(net.topology, net.count, seed)
    trace = forward(net.topology, before, images, training=True)
    right_loss, slope = losses.by_element("l2", trace.output, labels)
    right = rule.step(before, backward(trace, slope), rate)
    assume(all(np.abs(value.value).max() < LARGEST_WEIGHT for value in right.values()))
    loss = bench.call("train_step", images, labels, rate=rate, seed=seed)
    check(np.asarray(loss), right_loss, "the loss")
    for name, value in bench.worker.call("get_weights").items():
        check(value, right[name], f"{name} after a step")


EXAMPLES = {"caffe": 40, "torch": 60, "tensorflow": 12}  # a graph of TensorFlow's takes a second


@pytest.mark.parametrize("lowering", [True, False], ids=["from-lowered", "from-plain"])
def test_lowered_and_plain_networks_are_one(
    backend: str, lowering: bool, benches: dict[str, Bench], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Outputs, losses, gradients and momentum within rounding; names and shapes equal; each goes on from the other's snapshot."""
    bench = bench_of(benches, backend, tmp_path_factory)

    @settings(
        max_examples=EXAMPLES[backend] // 2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    # TensorFlow has no gradients of grouped convolutions on processors
    @given(net=nets(groups=backend != "tensorflow", windows=backend in ("torch", "tensorflow")))
    def run(net: Net) -> None:
        weights = random_weights(net.topology, net.count)
        rule = solvers.Solver("sgd", {"momentum": SOLVER["momentum"]})
        folder = tmp_path_factory.mktemp("snapshot")
        described = bench.load(net.topology, net.count, lowering)
        # Caffe's product over one image is the layer itself
        expected = () if backend == "caffe" and net.count == 1 else net.lowerable
        assert described["lowered"] == (list(expected) if lowering else [])
        bench.worker.call("set_weights", weights=weights)
        check_predictions(bench, net, weights)
        for seed in (1, 2):
            step(bench, net, rule, seed)
        bench.worker.call("save", folder=str(folder))
        saved = {**bench.worker.call("get_weights"), **bench.worker.call("get_weights", state=True)}

        other = bench.load(net.topology, net.count, not lowering)
        assert other["parameters"] == described["parameters"]
        assert other["lowered"] == ([] if lowering else list(expected))
        bench.worker.call("restore", folder=str(folder))
        restored = {**bench.worker.call("get_weights"), **bench.worker.call("get_weights", state=True)}
        assert saved.keys() == restored.keys()
        assert all(np.array_equal(value, restored[name]) for name, value in saved.items())
        for seed in (3, 4):
            step(bench, net, rule, seed)
        check_predictions(bench, net, bench.worker.call("get_weights"))

    run()


STEPS = 30


@pytest.mark.parametrize("trained", ["l0", "l1"])
def test_training_curves_coincide(
    backend: str, trained: str, benches: dict[str, Bench], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where one linear layer learns, the squared error is convex, and a step of gradient descent at a rate of at most 2 by its
    largest curvature brings no two networks further apart (Hardt, Recht and Singer, ICML 2016, lemma 3.7): all that they may
    differ by is the sum of what each of the steps was rounded by."""
    bench = bench_of(benches, backend, tmp_path_factory)
    tile: dict[str, Any] = {"kernel_shape": [2, 3], "strides": [2, 3]}
    topology = network(
        ("Conv", {**tile, "num_output": 5}), ("ConvTranspose", {**tile, "num_output": 2}), shape=(2, 4, 9)
    )
    start, batches = random_weights(topology), [bench.batch(topology, 3, seed) for seed in range(3)]
    names = [name for name in start if name.startswith(trained)]

    def gradient(weights: Mapping[str, Array], number: int) -> tuple[Bounded, dict[str, Bounded]]:
        images, labels = batches[number % len(batches)]
        trace = forward(topology, weights, images)
        loss, slope = losses.by_element("l2", trace.output, labels)
        found = backward(trace, slope)
        return loss, {name: found[name] for name in names}

    def flat(arrays: Mapping[str, Array]) -> Array:
        return np.concatenate([arrays[name].ravel() for name in names]).astype(np.float64)

    def slope(weights: Mapping[str, Array], number: int) -> Array:
        return flat({name: value.value for name, value in gradient(weights, number)[1].items()})

    def curvature(number: int) -> float:
        """The largest, of a loss whose gradient is linear: from its changes along each weight."""
        columns = []
        for name in names:
            for index in np.ndindex(start[name].shape):
                moved = {**start, name: start[name].astype(np.float64)}
                moved[name][index] += 1
                columns.append(slope(moved, number) - slope(start, number))
        return float(np.linalg.norm(np.array(columns), 2))

    largest = max(curvature(number) for number in range(len(batches)))
    frozen = [layer.name for layer in topology.layers if layer.name != trained]
    curves: dict[bool, list[tuple[float, dict[str, Array]]]] = {}
    for lowering in (True, False):
        described = bench.load(topology, 3, lowering, solver={**SOLVER, "momentum": 0.0}, frozen=tuple(frozen))
        assert described["lowered"] == (["l0", "l1"] if lowering else [])
        bench.worker.call("set_weights", weights=start)
        curves[lowering] = []
        for number in range(STEPS):
            before = bench.worker.call("get_weights")
            loss = bench.call("train_step", *batches[number % len(batches)], rate=1 / largest)
            curves[lowering].append((loss, before))
    assert curves[True][-1][0] < 0.8 * curves[True][0][0]

    apart = 0.0  # at most, in the 2-norm of the weights
    for number, ((lowered_loss, lowered), (plain_loss, plain)) in enumerate(zip(*curves.values(), strict=True)):
        assert np.linalg.norm(flat(lowered) - flat(plain)) <= apart
        off = apart * np.linalg.norm(slope(plain, number)) + largest / 2 * apart**2
        for weights in (lowered, plain):
            loss, found = gradient(weights, number)
            off += float(loss.bound)
            rule = solvers.Solver("sgd", {"momentum": 0.0})
            after = rule.step({name: weights[name] for name in names}, found, 1 / largest)
            apart += float(np.linalg.norm(flat({name: np.asarray(value.bound) for name, value in after.items()})))
        assert abs(lowered_loss - plain_loss) <= off
