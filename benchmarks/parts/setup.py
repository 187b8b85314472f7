"""Shared by the parts: datasets, a backend's settings, and contenders for them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pairing import Contender
from PIL import Image

import multiseg
from multiseg.dataset.fitting import mean_of
from multiseg.layout import Layout
from multiseg.network import NetworkSpec
from multiseg.settings.resolved import Settings
from multiseg.training.preparation import network_spec
from multiseg.worker.client import environment

RATE = 1e-9  # learning rate: what is measured is the same at any, and weights stay what they are
# what plain contenders run in besides the user's own environment: TensorFlow leaves oneDNN off on processors such as AMD's, and
# is several times slower so; the stronger rival counts
PLAIN = {"tensorflow": {"TF_ENABLE_ONEDNN_OPTS": "1"}}

What = Literal["train", "test"]


@dataclass(frozen=True)
class Bench:
    """A scratch folder, the backends asked for, whether few rounds will do, and the threads of the part ``networks``."""

    folder: Path
    backends: tuple[str, ...]
    quick: bool
    threads: int = 1

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 9

    @property
    def batches(self) -> tuple[int, ...]:
        """Sizes of training batches: the tutorial's of Caffe and PyTorch, and a common one."""
        return (4,) if self.quick else (4, 32)

    @property
    def seconds(self) -> float:
        """About how long a contender's turn takes."""
        return 0.15 if self.quick else 0.4

    def images(self, count: int, size: int = 32) -> Path:
        """A folder of triangles."""
        folder = self.folder / f"images-{count}-{size}"
        return folder if folder.exists() else multiseg.create_images(folder, count, size, seed=1)

    def dataset(self, count: int, size: int = 32, val_percent: float = 10) -> multiseg.Dataset:
        """A dataset of triangles with png features, as the tutorial's."""
        images, folder = self.images(count, size), self.folder / f"dataset-{count}-{size}-{val_percent:g}"
        if folder.exists():
            return multiseg.Dataset.open(folder)
        given = {"input": images / "input", "target": images / "target"}
        return multiseg.Dataset.create(folder, **given, val_percent=val_percent, seed=1)

    def grid(self) -> np.ndarray:
        """The grid image, 320x320 pixels, as (1, 1, H, W)."""
        return np.array(Image.open(self.images(400) / "grid.png"))[None, None]

    def settings(self, name: str, batch_size: int | None = None) -> Settings:
        dataset = self.dataset(400)
        return multiseg.Job(dataset=dataset, backend=name, batch_size=batch_size, seed=1).resolve(dataset)

    def images_file(self, name: str, features: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """Images (N, C, H, W) as the backend gets them from multiseg, in a file for contenders."""
        settings, dataset = self.settings(name), self.dataset(400)
        mean = mean_of(dataset, settings.subtract_mean)
        layout = Layout(settings.backend.data_order, settings.backend.channel_order, mean)
        path = self.folder / f"{name}-{len(features)}-{features.shape[2]}.npz"
        np.savez(path, features=layout.features(features), labels=layout.labels(labels))
        return {"images": str(path), "size": features.shape[2:]}

    def ours(self, name: str, what: What, batch_size: int, **given: Any) -> Contender:
        """The backend's network in a process as multiseg starts it."""
        settings = self.settings(name, batch_size)
        spec = network_spec(settings, self.dataset(400))
        spec = replace(spec, solver=spec.solver if what == "train" else None)
        return network_process(settings, spec, what, batch_size, **given)

    def plain(
        self, name: str, what: What, batch_size: int, environment: dict[str, str] | None = None, **given: Any
    ) -> Contender:
        """The loop that the framework's documentation has for the same network file."""
        if name == "caffe":
            given["net"] = caffe_net(self.settings(name).model, what, (batch_size, 1, *given["size"]))
        return Contender(
            f"plain_{name}", PLAIN.get(name, {}) | (environment or {}),
            what=what, batch_size=batch_size, rate=RATE, threads=self.settings(name).threads, **given,
        )  # fmt: skip

    def pair(self, stack: ExitStack, name: str, what: What, batch_size: int, **given: Any) -> dict[str, Contender]:
        """Both, ended with the stack."""
        rivals = {"plain": self.plain, "multiseg": self.ours}
        return {key: closing(stack, made(name, what, batch_size, **given)) for key, made in rivals.items()}

    def job(
        self, stack: ExitStack, name: str, dataset: multiseg.Dataset, batch_size: int, epochs: int, turns: int = 1,
        **options: Any,
    ) -> tuple[Callable[[], float], int]:  # fmt: skip
        """A turn of job.train, whose epochs are cut into so many ``turns``; and a turn's steps, whose seconds it says.

        ``options`` are further settings of the job.
        """
        steps = -(-len(dataset.train) // batch_size) // turns
        given = {"dataset": str(dataset.path), "backend": name, "batch_size": batch_size, "epochs": epochs, "seed": 1}
        given |= {"learning_rate": RATE, "val_interval": 1 / turns, "snapshot_interval": epochs, "keep": "last"}
        given |= options
        folder = tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder)
        job = closing(stack, Contender("multiseg_job", job=given, folder=f"{folder}/run"))
        return partial(job.run, steps), steps


def network_process(settings: Settings, spec: NetworkSpec, what: What, batch_size: int, **given: Any) -> Contender:
    """The network of a specification in a process as multiseg starts it."""
    given |= {"module": settings.backend.module, "spec": spec.to_json()}
    variables = environment(settings.backend, settings.threads)
    return Contender("multiseg_step", variables, what=what, batch_size=batch_size, rate=RATE, **given)


def closing(stack: ExitStack, contender: Contender) -> Contender:
    stack.callback(contender.close)
    return contender


def caffe_net(model: Path, what: What, shape: tuple[int, ...], labels: tuple[int, ...] | None = None) -> str:
    """The file's net as BVLC Caffe takes it, its data layers being inputs; ``labels``: their shape if not that of the images."""
    from google.protobuf import text_format
    from multiseg_caffe import losses, prototxt, sources
    from multiseg_caffe.deploy import deployed

    file = prototxt.read(str(model))
    if what == "train":
        net = sources.fed(
            prototxt.filtered(file, "train", str(model)), str(model), {"data": shape, "label": labels or shape}
        )
        return text_format.MessageToString(losses.with_native(net))
    found = deployed(file, str(model)).net
    net = prototxt.of_layers(found.name, found.layer)
    net.layer.add(name="data", type="Input", top=["data"]).input_param.shape.add(dim=shape)
    return text_format.MessageToString(sources.fed(net, str(model), {"data": shape}))
