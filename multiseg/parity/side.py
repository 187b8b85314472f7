"""One network in one backend, spoken to in the reference's names, layouts and colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from multiseg.backend import Backend
from multiseg.conversion.channels import swapped
from multiseg.errors import ModelError
from multiseg.layout import Layout
from multiseg.network import NetworkSpec
from multiseg.reference.bounded import Array
from multiseg.topology import Topology
from multiseg.topology.matching import Match, match
from multiseg.worker.client import Worker

Weights = Mapping[str, Array]


@dataclass
class Side:
    """A backend's worker, and the network file in it. ``colours``: whether its input's, and its output's, are in another order.

    ``reference`` is the network that is compared with, ``topology`` this file's own description. A file that was exported from
    the reference may say it in other layers; it keeps their names then.
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
        self.match = self._match()
        self._own: dict[str, Array] = {}
        self.trained: set[str] = set()  # the parameters that its solver moves
        # a flattened image has its channels last where images have; the dense layer after it has its weights in that order
        self._flat = flattened(self.reference) if self.layout.data_order == "NHWC" else set()

    def _match(self) -> Match:
        if not self.topology.diff(self.reference):
            return match(self.reference, self.topology)
        # written in several words by an exporter, which keeps the names of layers; what another layer makes under one is another
        types = {name: layer.type for layer in self.reference.layers for name in layer.outputs}
        same = [name for layer in self.topology.layers for name in layer.outputs if types.get(name) == layer.type]
        return Match({}, {name: name for name in same})

    def _by_name(self) -> dict[str, str]:
        """Names of the reference's parameters by the network's own, which an exporter kept."""
        wanted = self.reference.weights
        found = {name: name for name in self._own if name in wanted}
        split = {name: name.replace("_scale.", ".") for name in self._own if name not in found}
        found |= {name: other for name, other in split.items() if other in wanted}
        missing = set(wanted) - set(found.values())
        if missing:
            raise ModelError(f"{self.name}: cannot tell which weights are {sorted(missing)[0]!r} there")
        return found

    def load(self, spec: NetworkSpec) -> None:
        """Build the network in the worker."""
        described = self.worker.call("load", spec=replace(spec, model=str(self.path)).to_json())
        self._own = self.worker.call("get_weights")
        if not self.match.parameters:
            self.match = replace(self.match, parameters=self._by_name())
        own = described.get("trained", self._own)
        self.trained = {name for mine, name in self.match.parameters.items() if mine in own}

    def set_weights(self, weights: Weights) -> None:
        """Give it the reference's weights; parameters that are not the reference's stay as the file has them."""
        mine = {own: weights[name] for own, name in self.match.parameters.items()}
        mine = self._coloured(mine)
        shaped = {name: value.reshape(self._own[name].shape) for name, value in mine.items()}
        self.worker.call("set_weights", weights={**self._own, **shaped})

    def get_weights(self) -> dict[str, Array]:
        """Its weights by the reference's names."""
        found = self.worker.call("get_weights")
        mine = self._coloured({own: found[own] for own in self.match.parameters})
        shapes = self.reference.weights
        return {name: mine[own].reshape(shapes[name]) for own, name in self.match.parameters.items()}

    def _coloured(self, weights: dict[str, Array]) -> dict[str, Array]:
        if not any(self.colours):
            return weights
        return swapped(self.topology, weights, *self.colours)

    def predict(self, features: Array, labels: Array | None) -> tuple[Array, float | None, dict[str, Array]]:
        """Output (N, ...), loss, and what layers made, by the reference's names, for neutral images and labels (N, C, H, W)."""
        told = None if labels is None else self.layout.labels(labels)
        batch = {"features": self.layout.features(features), "labels": told}
        output, loss, made = self.worker.call("predict", **batch, activations=True)
        shapes = self.reference.shapes
        found = {}
        for own, name in self.match.values.items():
            if own in made and own != self.topology.input and name not in self._flat:
                found[name] = _shaped(self.layout.activation(made[own]), shapes[name])
        last = self.reference.outputs[0]
        output = _shaped(self.layout.activation(output), shapes[last])
        if self.colours[1]:
            output = output[:, ::-1]
            if last in found:
                found[last] = found[last][:, ::-1]
        return output, None if loss is None else float(loss), found

    def train_step(self, features: Array, labels: Array, rate: float, seed: int) -> float:
        """The loss before the update."""
        batch = {"features": self.layout.features(features), "labels": self.layout.labels(labels)}
        return float(self.worker.call("train_step", **batch, rate=rate, seed=seed))


def _shaped(values: Array, shape: tuple[int, ...]) -> Array:
    """Without the axes of one pixel that a backend may add to vectors."""
    whole = (len(values), *shape)
    return values.reshape(whole) if values.size == np.prod(whole) else values


def flattened(topology: Topology) -> set[str]:
    """The values that are images of several pixels and channels as vectors."""
    shapes, found = topology.shapes, set[str]()
    for layer in topology.layers:
        before = shapes[layer.inputs[0]]
        image = len(before) == 3 and before[0] > 1 and before[1] * before[2] > 1
        if (image and len(layer.shapes[0]) == 1 and layer.type in ("Flatten", "Reshape", "Squeeze")) or (
            layer.type != "Gemm" and any(name in found for name in layer.inputs)
        ):
            found.update(layer.outputs)
    return found
