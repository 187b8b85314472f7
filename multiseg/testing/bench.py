"""A backend's process for tests: networks are loaded into it one after the other, and given neutral arrays."""

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

# a solver whose step is the gradient times the rate
PLAIN: dict[str, Any] = {"recipe": "equal", "solver": "sgd", "solver_options": {"momentum": 0.0}, "loss": "l2"}


class Bench:
    """``worker``: the process; ``described``: what the network that was loaded last says of itself.

    Images are (N, C, H, W) RGB and float32 here, as are outputs, whatever the backend's layout is.
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
        """What a job with these settings has a backend build: a fixed seed, batches of 4."""
        values = {"seed": 3, "batch_size": 4, "device": "cpu", "threads": self.threads, **settings}
        found = Job(dataset="", backend=self.backend.name, model=self.model, **values).resolve()
        return spec_of(found, self.input_shape, self.label_shape)

    def load(self, predict_only: bool = False, **settings: Any) -> None:
        """Build the network newly, in place of the one before."""
        spec = self.spec(**settings)
        self.described = self.call("load", spec=replace(spec, solver=None if predict_only else spec.solver).to_json())

    def call(self, method: str, **arguments: Any) -> Any:
        """A call of the worker's."""
        return self.worker.call(method, **arguments)

    def inside(self, function: str, **arguments: Any) -> Any:
        """What a function of multiseg.testing.inside says in the worker."""
        arguments = {"module": self.backend.module, **arguments}
        return self.call("read", module="multiseg.testing.inside", function=function, arguments=arguments)

    def images(self, count: int = 4, seed: int = 0, size: tuple[int, int] | None = None) -> Array:
        """Noise from -1 to 1."""
        return self._noise(count, self.input_shape, seed, size)

    def labels(self, count: int = 4, seed: int = 0, size: tuple[int, int] | None = None) -> Array:
        """Noise from -3 to 3, of which a network's outputs are off by less than 1, and by more."""
        return 3 * self._noise(count, self.label_shape, seed + 1000, size)

    def batch(self, count: int = 4, seed: int = 0) -> dict[str, Array]:
        """Features and labels in the backend's layout."""
        images, labels = self.images(count, seed), self.labels(count, seed)
        return {"features": self.layout.features(images), "labels": self.layout.labels(labels)}

    def predict(self, images: Array, labels: Array | None = None) -> tuple[Array, Any]:
        """Outputs of neutral images, and their loss, or None without labels."""
        given = None if labels is None else self.layout.labels(labels)
        output, loss, _ = self.call("predict", features=self.layout.features(images), labels=given)
        return self.layout.output(output), loss

    def step(self, batch: Mapping[str, Array], rate: float, seed: int = 0) -> float:
        """The loss before an update."""
        loss: float = self.call("train_step", **batch, rate=rate, seed=seed)
        return loss

    @property
    def weights(self) -> Weights:
        """The network's weights; they can be set."""
        found: Weights = self.call("get_weights")
        return found

    @weights.setter
    def weights(self, weights: Mapping[str, Array]) -> None:
        self.call("set_weights", weights=dict(weights))

    @property
    def state(self) -> Weights:
        """What the solver keeps of them."""
        found: Weights = self.call("get_weights", state=True)
        return found

    def begin(self, seed: int = 1) -> Weights:
        """Give the network weights with which all of it takes part, and return them.

        Frameworks start some parameters at values that hide what is behind them, as a deconvolution of zeros does.
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
        """Names of what changes at rate 0: not the solver's, but noted while training, as batch normalisation's means."""
        before = self.weights
        self.step(self.batch(), 0.0)
        after = self.weights
        self.weights = before
        return {name for name in before if before[name].tobytes() != after[name].tobytes()}

    def gradient(self, batch: Mapping[str, Array], seed: int = 0) -> dict[str, npt.NDArray[np.float64]]:
        """Of the loss, as one step of the solver PLAIN tells it, in float64; the weights are what they were, then."""
        before = self.weights
        self.step(batch, gradient.RATE, seed)
        after = self.weights
        self.weights = before
        return {name: gradient.told(before[name], after[name]) for name in before}

    def close(self) -> None:
        """End the process."""
        self.worker.close()

    def _noise(self, count: int, shape: Shape, seed: int, size: tuple[int, int] | None) -> Array:
        drawn = np.random.default_rng(seed).uniform(-1, 1, (count, shape[0], *(size or shape[1:])))
        return drawn.astype(np.float32)
