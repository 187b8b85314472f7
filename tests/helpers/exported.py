"""Networks of a few layers, written as each framework's own source, loaded there, and given the same weights and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from helpers.lending import lend
from multiseg import backend as registry
from multiseg.exporting import files
from multiseg.layout import Layout
from multiseg.model_files.kinds import kind_of
from multiseg.network import NetworkSpec
from multiseg.topology import Topology
from multiseg.worker.client import Worker

Array = np.ndarray[Any, Any]
Step = tuple[Any, ...]  # type, parameters, and inputs and outputs where it is not just one after the other


def network(*steps: Step, shape: tuple[int, int, int] = (4, 9, 10)) -> Topology:
    """Layers l0, l1, ... one after the other; ``images`` is the input, and a Scale is before them all, as ``first``."""
    layers: list[dict[str, Any]] = [{"name": "first", "type": "Scale", "inputs": ["images"], "parameters": {}}]
    last = "first"
    for number, (kind, parameters, *more) in enumerate(steps):
        inputs, outputs = [*more, None, None][:2]
        layer = {"name": f"l{number}", "type": kind, "inputs": inputs or [last], "parameters": parameters}
        layers.append({**layer, "outputs": outputs or [layer["name"]]})
        last = layers[-1]["outputs"][0]
    description = {"input": "images", "input_shape": shape, "layers": layers, "outputs": [last]}
    return Topology.of("some.net", "test", description)


def random_weights(topology: Topology, seed: int = 0) -> dict[str, Array]:
    """Of a size that keeps what layers make near 1; variances positive."""
    draw = np.random.default_rng(seed)
    made = {}
    for name, shape in topology.weights.items():
        value = draw.random(shape) + 0.5 if name.endswith("running_var") else draw.standard_normal(shape)
        made[name] = (value / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)
    return made


class Frameworks:
    """A worker for each backend, which loads networks and reads files; close them."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def load(
        self, backend: str, path: Path, topology: Topology, weights: dict[str, Array],
        label_shape: Any = None, solver: Any = None,
    ) -> Worker:  # fmt: skip
        """The worker of ``backend`` with the network of a file in it, which ``topology`` describes, and these weights."""
        worker = self._worker(backend)
        shape = topology.shapes[topology.outputs[0]]
        label = label_shape or (shape if len(shape) == 3 else (1, 1, 1))
        spec = NetworkSpec(
            model=str(path), input_shape=topology.input_shape, label_shape=label, solver=solver, loss=None,
            batch_size=2, val_batch_size=2, seed=1, threads=1, device="cpu", lowering=False,
        )  # fmt: skip
        described = worker.call("load", spec=spec.to_json())
        # Caffe has a batch normalisation's factors in a layer of their own
        own = {name: weights[name.replace("_scale.", ".")] for name in described["parameters"]}
        worker.call("set_weights", weights=own)
        return worker

    def outputs(self, backend: str, topology: Topology, folder: Path, images: Array) -> Array:
        """What the network, exported into ``folder``, makes of images with random weights. Raises ModelError if it cannot be."""
        path = files.export(topology, backend, folder / f"net_{backend}{registry.get(backend).formats[0]}")
        return self.predict(backend, path, topology, random_weights(topology), images)

    def predict(self, backend: str, path: Path, topology: Topology, weights: dict[str, Array], images: Array) -> Array:
        """What a file's network makes of ``images`` (N, C, H, W); vectors as (N, features)."""
        layout = Layout(registry.get(backend).data_order, "RGB", None)
        worker = self.load(backend, path, topology, weights)
        output, _, _ = worker.call("predict", features=layout.features(images), labels=None)
        neutral: Array = layout.activation(output)
        return neutral if len(topology.shapes[topology.outputs[0]]) == 3 else neutral.reshape(len(images), -1)

    def describe(self, path: Path, shape: tuple[int, int, int]) -> Topology:
        """As multiseg.describe, without a new process each time."""
        backend, kind = kind_of(path, "network")
        arguments = {"path": str(path), "input_shape": list(shape)}
        said = self._worker(backend.name).call("read", module=backend.reader, function="describe", arguments=arguments)
        return Topology.of(path.name, kind.name, said)

    def _worker(self, backend: str) -> Worker:
        if backend not in self._workers:
            self._workers[backend] = lend(backend)
        return self._workers[backend]

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.close()
