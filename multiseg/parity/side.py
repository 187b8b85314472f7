"""One network in one backend, with an interface in the reference's names, layouts and channel order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from multiseg.backend import Backend
from multiseg.conversion.channels import orders_of_values, swapped
from multiseg.conversion.matching import ALL_OF_SOURCE, ParameterMatch, match_parameters
from multiseg.conversion.parameters import ParameterSet
from multiseg.layout import Layout
from multiseg.network import NetworkSpec
from multiseg.parity.tying import with_all_names, with_unused_names
from multiseg.reference.averages import AverageRule
from multiseg.reference.bounded import Array
from multiseg.topology import Topology
from multiseg.worker.client import Worker

Weights = Mapping[str, Array]


@dataclass
class ParitySide:
    """A backend's worker and the network file that it computes.

    ``reference`` is the network that is compared with, ``topology`` the description of this file. ``colours``: whether the
    channels of its input, and of its output, are reversed. A file that was exported from the reference may write one layer as
    several ones; it keeps the reference's names then.
    """

    name: str
    backend: Backend
    worker: Worker
    path: Path
    reference: Topology
    topology: Topology
    layout: Layout
    colours: tuple[bool, bool]

    def __post_init__(self) -> None:
        self.matching = ParameterMatch({}, "name")  # the reference's parameters by this file's
        self.values: dict[str, str] = {}  # the reference's values of layers by this file's
        self.trained: set[str] = set()  # the parameters that the solver updates
        self.known: set[str] = set()  # the parameters that this file has
        # how the framework updates the averages of batch normalisation, as far as it states that
        self.averages: dict[str, AverageRule] = {}
        self._own: dict[str, Array] = {}
        self._orders: Mapping[
            str, tuple[int, ...]
        ] = {}  # channels of this file's values that are not in the reference's order
        # where channels are last, a flattened image has another order of elements, and so have the weights of the dense layer
        channels_last = self.layout.data_order == "NHWC"
        self._flat = flattened(self.reference) if channels_last else set()
        self._before_images = before_images(self.topology) if channels_last else set()

    def load(self, spec: NetworkSpec) -> None:
        """Build the network in the worker. Raises ModelError if its parameters cannot be matched with the reference's."""
        described = self.worker.call("load", spec=replace(spec, model=str(self.path)).to_json())
        self._own = self.worker.call("get_weights")
        shapes = {name: value.shape for name, value in self._own.items()}
        self.matching = match_parameters(
            ParameterSet(self.reference.source, self.reference.weights, self.reference),
            ParameterSet(self.name, shapes, self.topology, exported=True),
            ALL_OF_SOURCE,
        )
        self.values = self.matching.values or self._same_values()
        self._orders = orders_of_values(self.topology, *self.colours) if any(self.colours) else {}
        trained = described.get("trained", self._own)
        self.known = set(self.matching.names.values())
        rules = described.get("averages", {})
        self.averages = {name: AverageRule.of(rules[own]) for own, name in self.matching.names.items() if own in rules}
        owners = self.reference.owners
        self.trained = {owners.get(name, name) for own, name in self.matching.names.items() if own in trained}

    def _same_values(self) -> dict[str, str]:
        """Values of the same name and shape, computed by the same layer; another one may have the name of a layer that a file
        writes as several ones, such as a normalisation without its factors."""
        signatures, own = (
            {node.value: (node.shape, node.signature()) for node in topology.canonical.nodes}
            for topology in (self.reference, self.topology)
        )
        return {name: name for name, signature in own.items() if signatures.get(name) == signature}

    def set_weights(self, weights: Weights) -> None:
        """Set the reference's weights; parameters that the reference does not have keep the file's values."""
        self.worker.call("set_weights", weights=self._reversed(self.named(weights)))

    def named(self, weights: Weights) -> dict[str, Array]:
        """Return the reference's weights by the names and shapes of the file, with the file's values of further parameters."""
        own = self.matching.take(weights)
        shaped = {name: value.reshape(self._own[name].shape) for name, value in own.items()}
        return with_unused_names(self.topology, shaped, self._own)

    def get_weights(self) -> dict[str, Array]:
        """Return the weights by the reference's names."""
        return self._named(self.worker.call("get_weights"))

    def _named(self, weights: Weights) -> dict[str, Array]:
        own = self._reversed({name: weights[name] for name in self.matching.names})
        shapes = self.reference.weights
        named = {name: own[mine].reshape(shapes[name]) for mine, name in self.matching.names.items()}
        return with_all_names(self.reference, named)

    def _reversed(self, weights: dict[str, Array]) -> dict[str, Array]:
        if not any(self.colours):
            return weights
        return swapped(self.topology, weights, *self.colours)

    def predict(self, features: Array, labels: Array | None) -> tuple[Array, float | None, dict[str, Array]]:
        """Return output (N, ...), loss and outputs of layers by the reference's names, for neutral batches (N, C, H, W)."""
        own_labels = None if labels is None else self.layout.labels(labels)
        batch = {"features": self.layout.features(features), "labels": own_labels}
        output, loss, activations = self.worker.call("predict", **batch, activations=True)
        return self._output(output), None if loss is None else float(loss), self.reference_values(activations)

    def reference_values(self, activations: Weights) -> dict[str, Array]:
        """Return outputs of layers by the reference's names and in its layout, without those whose order may be another one."""
        shapes = self.reference.shapes
        values = {}
        for own, name in self.values.items():
            reordered = name in self._flat or own in self._before_images
            if own in activations and own != self.topology.input and not reordered:
                made = self.in_reference_order(own, self.layout.activation(activations[own]))
                values[name] = shaped(made, shapes[name])
        return values

    def in_reference_order(self, own: str, values: Array) -> Array:
        """Return a value (N, C, ...) of this file with its channels in the reference's order."""
        return np.take(values, np.argsort(self._orders[own]), 1) if own in self._orders else values

    def output(self, features: Array) -> Array:
        """Return the output (N, ...) as users compute it: without outputs of layers, a framework may compute several as one."""
        return self._output(self.worker.call("predict", features=self.layout.features(features), labels=None)[0])

    def _output(self, made: Array) -> Array:
        output = shaped(self.layout.activation(made), self.reference.shapes[self.reference.outputs[0]])
        return output[:, ::-1] if self.colours[1] else output

    def begin_step(self, features: Array, labels: Array, rate: float, seed: int) -> Callable[[], dict[str, Array]]:
        """Start one training step; return a function that waits for its end and returns the weights after it.

        Meanwhile this process can compute the reference's step.
        """
        batch = {"features": self.layout.features(features), "labels": self.layout.labels(labels)}
        step = self.worker.submit("train_step", **batch, rate=rate, seed=seed)
        weights = self.worker.submit("get_weights")

        def finish() -> dict[str, Array]:
            try:
                self.worker.result(step)
            except BaseException:
                self.worker.abandon(weights)
                raise
            return self._named(self.worker.result(weights))

        return finish


def shaped(values: Array, shape: tuple[int, ...]) -> Array:
    """Remove the axes of one pixel that a backend may add to vectors."""
    whole = (len(values), *shape)
    return values.reshape(whole) if values.size == np.prod(whole) else values


def flattened(topology: Topology) -> set[str]:
    """Return the values that are flattened images of several pixels and channels."""
    shapes, values = topology.shapes, set[str]()
    for layer in topology.layers:
        before = shapes[layer.inputs[0]]
        image = len(before) == 3 and before[0] > 1 and before[1] * before[2] > 1
        if (image and len(layer.shapes[0]) == 1 and layer.type in ("Flatten", "Reshape", "Squeeze")) or (
            layer.type != "Gemm" and any(name in values for name in layer.inputs)
        ):
            values.update(layer.outputs)
    return values


def before_images(topology: Topology) -> set[str]:
    """Return the vectors of dense layers, and those computed from them, that become images of several pixels and channels."""
    values, makers = set[str](), {layer.outputs[0]: layer for layer in topology.layers}
    for layer in topology.layers:
        image, name = layer.shapes[0], layer.inputs[0]
        if layer.type != "Reshape" or len(image) != 3 or image[0] == 1 or image[1] * image[2] == 1:
            continue
        while len(topology.shapes[name]) == 1 and name in makers:
            values.add(name)
            if makers[name].type == "Gemm":
                break
            name = makers[name].inputs[0]
    return values
