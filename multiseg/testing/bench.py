"""Run a backend's process in tests: load networks one after the other, and call them with neutral arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg import backend as registry
from multiseg.job.job import Job
from multiseg.layout import Layout
from multiseg.network import NetworkSpec
from multiseg.reference import gradient
from multiseg.settings.initialisation import initial_weights
from multiseg.training.preparation import spec_of
from multiseg.worker import pool

Array = npt.NDArray[np.float32]
Weights = dict[str, Array]
Shape = tuple[int, int, int]

# a solver whose step is the gradient times the learning rate
PLAIN: dict[str, Any] = {"recipe": "equal", "solver": "sgd", "solver_options": {"momentum": 0.0}, "loss": "l2"}


class Bench:
    """A backend's process. ``worker`` is the process, ``described`` the description of the network loaded last.

    Images and outputs are ``(N, C, H, W)`` RGB float32 here, for any layout of the backend.
    """

    def __init__(
        self, backend: str, model: str | Path | None, input_shape: Shape, label_shape: Shape, threads: int = 1
    ):
        self.backend = registry.get(backend)
        self.model = self.backend.default_model_path if model is None else Path(model).resolve()
        self.input_shape, self.label_shape, self.threads = input_shape, label_shape, threads
        self.layout = Layout(self.backend.data_order, self.backend.channel_order)
        self.worker = pool.start(self.backend, threads)
        self.described: dict[str, Any] = {}

    def spec(self, **settings: Any) -> NetworkSpec:
        """Return the network specification of a job with these settings, a fixed seed and batches of 4."""
        values = {"seed": 3, "batch_size": 4, "device": "cpu", "threads": self.threads, **settings}
        resolved = Job(dataset="", backend=self.backend.name, model=self.model, **values).resolve()
        return spec_of(resolved, self.input_shape, self.label_shape)

    def load(self, predict_only: bool = False, **settings: Any) -> None:
        """Build a new network, which replaces the previous one."""
        spec = self.spec(**settings)
        self.described = self.call("load", spec=replace(spec, solver=None if predict_only else spec.solver).to_json())

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the worker."""
        return self.worker.call(method, **arguments)

    def inside(self, function: str, **arguments: Any) -> Any:
        """Call a function of multiseg.testing.inside in the worker."""
        arguments = {"module": self.backend.module, **arguments}
        return self.call("read", module="multiseg.testing.inside", function=function, arguments=arguments)

    def images(self, count: int = 4, seed: int = 0, size: tuple[int, int] | None = None) -> Array:
        """Return uniform noise from -1 to 1."""
        return self._noise(count, self.input_shape, seed, size)

    def labels(self, count: int = 4, seed: int = 0, size: tuple[int, int] | None = None) -> Array:
        """Return uniform noise from -3 to 3: differences to a network's outputs are both below and above 1."""
        return 3 * self._noise(count, self.label_shape, seed + 1000, size)

    def batch(self, count: int = 4, seed: int = 0) -> dict[str, Array]:
        """Return features and labels in the backend's layout."""
        images, labels = self.images(count, seed), self.labels(count, seed)
        return {"features": self.layout.features(images), "labels": self.layout.labels(labels)}

    def predict(self, images: Array, labels: Array | None = None) -> tuple[Array, Any]:
        """Return the outputs of neutral images, and their loss, or None without labels."""
        targets = None if labels is None else self.layout.labels(labels)
        output, loss, _ = self.call("predict", features=self.layout.features(images), labels=targets)
        return self.layout.output(output), loss

    def step(self, batch: Mapping[str, Array], rate: float, seed: int = 0) -> float:
        """Train one step and return the loss before the update."""
        loss: float = self.call("train_step", **batch, rate=rate, seed=seed)
        return loss

    @property
    def weights(self) -> Weights:
        """Return the network's weights; they can be set."""
        weights: Weights = self.call("get_weights")
        return weights

    @weights.setter
    def weights(self, weights: Mapping[str, Array]) -> None:
        self.call("set_weights", weights=dict(weights))

    @property
    def state(self) -> Weights:
        """Return the solver's state of the weights."""
        state: Weights = self.call("get_weights", state=True)
        return state

    def begin(self, seed: int = 1) -> Weights:
        """Set weights with which every layer affects the output, and return them.

        Frameworks initialise some parameters to values that hide the layers before them, e.g. a deconvolution to zeros.
        """
        own, draw = self.weights, np.random.default_rng(seed)
        channels = (self.input_shape[0], self.label_shape[0])
        shapes = {name: value.shape for name, value in own.items()}
        kernels = initial_weights(shapes, seed, self.backend.channel_order, channels)
        vectors = {name: value + draw.uniform(-0.1, 0.1, value.shape) for name, value in own.items() if value.ndim < 2}
        variances = {name: draw.uniform(0.5, 1.5, shapes[name]) for name in own if name.endswith(".running_var")}
        started = {**own, **kernels, **vectors, **variances}
        self.weights = {name: np.asarray(started[name], np.float32) for name in own}
        return self.weights

    def averages(self) -> set[str]:
        """Return the names of weights that change at learning rate 0: running averages, as in batch normalisation."""
        before = self.weights
        self.step(self.batch(), 0.0)
        after = self.weights
        self.weights = before
        return {name for name in before if before[name].tobytes() != after[name].tobytes()}

    def gradient(self, batch: Mapping[str, Array], seed: int = 0) -> dict[str, npt.NDArray[np.float64]]:
        """Return the gradient of the loss in float64, derived from one step of the solver PLAIN; the weights are restored."""
        before = self.weights
        self.step(batch, gradient.RATE, seed)
        after = self.weights
        self.weights = before
        return {name: gradient.from_step(before[name], after[name]) for name in before}

    def close(self) -> None:
        """End the process."""
        self.worker.close()

    def _noise(self, count: int, shape: Shape, seed: int, size: tuple[int, int] | None) -> Array:
        drawn = np.random.default_rng(seed).uniform(-1, 1, (count, shape[0], *(size or shape[1:])))
        return drawn.astype(np.float32)
