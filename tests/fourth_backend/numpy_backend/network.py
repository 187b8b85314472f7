"""A 3x3 convolution of one plane to one or several, then a factor and an offset for each of these; SGD or Adam."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multiseg import network
from multiseg.errors import ModelError
from multiseg.network import CLASSES, STEPS, Array, LossTerms, NetworkSpec, factors
from numpy_backend import losses, reader

SNAPSHOT = "network.npz"
SLOTS = {"sgd": ("momentum",), "adam": ("mean", "square")}  # what a solver keeps of each parameter


def shapes_of(channels: int) -> dict[str, tuple[int, ...]]:
    vector = (channels,)
    return {"conv.weight": (channels, 1, 3, 3), "conv.bias": vector, "scale.weight": vector, "scale.bias": vector}


def probe() -> dict[str, Any]:
    return {"version": np.__version__, "device": "cpu", "numpy": np.__version__}


class Network(network.Network):
    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        self.dropout = reader.dropout(spec.model)
        channels = reader.channels(spec.model)
        self.output_shape = (channels, *spec.input_shape[1:])
        if spec.input_shape[0] != 1:
            raise ModelError(f"{spec.model}: takes images of one channel, not {spec.input_shape}")
        if not spec.fits(self.output_shape):
            raise ModelError(f"{spec.model}: its output is {self.output_shape}, the labels are {spec.label_shape}")
        if spec.labels == CLASSES:
            spec.check_class_weights(channels)
        self.shapes = shapes_of(channels)
        draw = np.random.default_rng(spec.seed)
        self.weights = {name: draw.normal(0, 0.1, shape).astype(np.float32) for name, shape in self.shapes.items()}
        self.weights["scale.weight"] += 1
        self.loss = losses.named(spec)
        self.factors = factors(spec, dict.fromkeys(self.shapes, (1.0, 1.0)))  # none for what is frozen
        slots = SLOTS[spec.solver["name"]] if spec.solver else ()
        self.state = {
            f"{slot}/{name}": np.zeros(self.shapes[name], np.float32) for slot in slots for name in self.factors
        }
        self.steps = 0

    def describe(self) -> dict[str, Any]:
        return {
            "batch_size": self.spec.batch_size or 8,
            "val_batch_size": self.spec.val_batch_size or 8,
            "labels": self.spec.label_kind(self.output_shape),
            **losses.described(self.spec, self.output_shape[0]),
            "device": "cpu",
            "parameters": {name: list(shape) for name, shape in self.shapes.items()},
            "lowered": [],
            "trained": {name: lr for name, (lr, _) in self.factors.items()} if self.spec.solver else {},
        }

    def _forward(self, features: Array) -> tuple[Any, Any, Any]:
        padded = np.pad(features, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        mixed = np.einsum("ncyxij,ocij->noyx", windows, self.weights["conv.weight"])
        mixed = mixed + self.weights["conv.bias"][:, np.newaxis, np.newaxis]
        scale, offset = (self.weights[f"scale.{part}"][:, np.newaxis, np.newaxis] for part in ("weight", "bias"))
        return windows, mixed, mixed * scale + offset

    def train_step(self, features: Array, labels: Array, rate: float, seed: int = 0) -> float:
        windows, mixed, output = self._forward(features * self._factors(features, seed))
        loss, outer = self.loss(output.astype(np.float64), labels)
        inner = outer * self.weights["scale.weight"][:, np.newaxis, np.newaxis]
        gradients = {
            "conv.weight": np.einsum("ncyxij,noyx->ocij", windows, inner),
            "conv.bias": inner.sum(axis=(0, 2, 3)),
            "scale.weight": (outer * mixed).sum(axis=(0, 2, 3)),
            "scale.bias": outer.sum(axis=(0, 2, 3)),
        }
        assert self.spec.solver is not None
        self.steps += 1
        for name, (lr, decay) in self.factors.items():
            gradient = gradients[name] + decay * self.spec.solver["weight_decay"] * self.weights[name]
            self.weights[name] -= (rate * lr * self._direction(name, gradient)).astype(np.float32)
        return loss

    def _factors(self, features: Array, seed: int) -> Array:
        kept = np.random.default_rng(seed).random(features.shape) >= self.dropout
        return (kept / (1 - self.dropout)).astype(np.float32)

    def training_values(
        self, features: Array, labels: Array, seed: int
    ) -> tuple[dict[str, Array], dict[str, Array]] | None:
        return ({"drop": self._factors(features, seed)} if self.dropout else {}), {}

    def _direction(self, name: str, gradient: Any) -> Any:
        assert self.spec.solver is not None
        solver = self.spec.solver
        if solver["name"] == "sgd":
            return self._running(f"momentum/{name}", solver["momentum"], gradient)
        first, second = solver["momentum"], solver["momentum2"]
        mean = self._running(f"mean/{name}", first, (1 - first) * gradient)
        square = self._running(f"square/{name}", second, (1 - second) * gradient**2)
        correction = (1 - second**self.steps) ** 0.5 / (1 - first**self.steps)
        return correction * mean / (np.sqrt(square) + solver["delta"])

    def _running(self, key: str, decay: float, value: Any) -> Any:
        self.state[key] = (decay * self.state[key] + value).astype(np.float32)
        return self.state[key]

    def predict(
        self, features: Array, labels: Array | None, activations: bool = False
    ) -> tuple[Array, float | None, dict[str, Array]]:
        _, mixed, output = self._forward(features)
        loss = None if labels is None else self.loss(output.astype(np.float64), labels)[0]
        made = {"conv": mixed, "scale": output} if activations else {}
        return output.astype(np.float32), loss, {name: value.astype(np.float32) for name, value in made.items()}

    def evaluate(self, features: Array, labels: Array) -> tuple[Array, LossTerms]:
        output, loss, _ = self.predict(features, labels)
        assert loss is not None
        return output, losses.terms(self.spec, output.astype(np.float64), labels, loss)

    def get_weights(self, state: bool = False) -> dict[str, Array]:
        if not state:
            return {name: value.copy() for name, value in self.weights.items()}
        return {**{name: value.copy() for name, value in self.state.items()}, **self._counted()}

    def _counted(self) -> dict[str, Any]:
        """The number of updates, where the solver's rule depends on it."""
        counts = self.spec.solver is not None and self.spec.solver["name"] == "adam"
        return {STEPS: np.array(self.steps)} if counts else {}

    def set_weights(self, weights: Mapping[str, Array], state: Mapping[str, Array] | None = None) -> None:
        network.check_weights(self.spec.model, self.shapes, weights)
        if state is not None:
            kept = {**self.state, **self._counted()}
            network.check_state(self.spec.model, {name: value.shape for name, value in kept.items()}, state)
            self.state = {name: np.array(state[name], np.float32) for name in self.state}
            self.steps = int(state.get(STEPS, self.steps))
        self.weights = {name: np.array(weights[name], np.float32) for name in self.shapes}

    def save(self, folder: str) -> None:
        weights = {f"weights/{name}": value for name, value in self.weights.items()}
        state = {f"state/{name}": value for name, value in self.state.items()}
        np.savez(Path(folder) / SNAPSHOT, **weights, **state, **{"state/steps": self.steps})

    def restore(self, folder: str) -> None:
        with np.load(Path(folder) / SNAPSHOT) as file:
            self.weights = {name: file[f"weights/{name}"] for name in self.weights}
            self.state = {name: file[f"state/{name}"] for name in self.state}
            self.steps = int(file["state/steps"])

    def close(self) -> None:
        self.weights.clear()
