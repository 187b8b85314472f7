"""The networks in tests/nets, and a worker with one of them in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from helpers.lending import lend
from multiseg.dataset import Dataset
from multiseg.network import NetworkSpec
from multiseg.worker.client import Worker

NETS = Path(__file__).parents[1] / "nets"
SHAPES = {  # of images and labels
    "lenet": ((1, 28, 28), (1, 1, 1)),
    "alexnet": ((3, 67, 67), (1, 1, 1)),
    "inception": ((3, 32, 32), (1, 1, 1)),
    "autoencoder": ((1, 32, 32), (1, 32, 32)),
    "fcn8s": ((3, 64, 64), (1, 64, 64)),
}


def spec(model: Path, input_shape: Any, label_shape: Any, **more: Any) -> NetworkSpec:
    """What a backend is told of a network."""
    settings = {
        "loss": None,
        "solver": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0},
        "lowering": False,
        **more,
    }
    return NetworkSpec(
        model=str(model), input_shape=input_shape, label_shape=label_shape, batch_size=None, val_batch_size=None, seed=1,
        threads=1, device="cpu", **settings,
    )  # fmt: skip


def load(backend: str, model: Path, input_shape: Any, label_shape: Any, **more: Any) -> Worker:
    """A worker with a network in it. Close it."""
    worker = lend(backend)
    try:
        told = spec(model, input_shape, label_shape, **more).to_json()
        worker.described = worker.call("load", spec=told)  # type: ignore[attr-defined]
    except BaseException:
        worker.close()
        raise
    return worker


def batch(net: str, count: int = 3) -> dict[str, np.ndarray]:
    """Features and labels as the core gives them to Caffe and PyTorch: NCHW; class numbers, or images for the autoencoder."""
    images, labels = SHAPES[net]
    numbers = np.random.default_rng(5)
    features = numbers.normal(size=(count, *images)).astype(np.float32)
    classes = {"fcn8s": 5}.get(net, 10)
    made = numbers.random((count, *labels)) if net == "autoencoder" else numbers.integers(0, classes, (count, *labels))
    return {"features": features, "labels": made.astype(np.float32)}


def dataset(net: str, folder: Path, count: int = 12) -> Dataset:
    """A dataset of random images with labels for a network: class numbers in the records, as DIGITS has them, or images."""
    images, labels = SHAPES[net]
    return random_dataset(folder, images, labels, {"fcn8s": 5, "autoencoder": 256}.get(net, 10), count)


def random_dataset(folder: Path, images: Any, labels: Any, classes: int, count: int = 12) -> Dataset:
    """A dataset of random images and labels of these shapes (C, H, W)."""
    from multiseg_caffe.proto import message

    draw = np.random.default_rng(7)
    for name in ("features", "labels")[: 1 if labels == (1, 1, 1) else 2]:
        path = folder / "train_db" / name
        path.mkdir(parents=True)
        with lmdb.open(str(path), map_size=1 << 26) as environment, environment.begin(write=True) as written:
            for i in range(count):
                (channels, height, width), most = (images, 256) if name == "features" else (labels, classes)
                pixels = draw.integers(0, most, (channels, height, width), dtype=np.uint8)
                datum = message("Datum")(
                    channels=channels, height=height, width=width, data=pixels.tobytes(), label=i % classes
                )
                written.put(b"%09d" % i, datum.SerializeToString())
    return Dataset.open(folder)


def bilinear(channels: int, size: int) -> np.ndarray:
    """Weights (IOHW) of a deconvolution that upsamples each channel by size / 2, linearly (Long et al. 2015)."""
    centre, factor = (size - 1) / 2, (size + 1) // 2
    ramp = 1 - np.abs(np.arange(size) - centre) / factor
    weights = np.zeros((channels, channels, size, size), np.float32)
    weights[range(channels), range(channels)] = np.outer(ramp, ramp)
    return weights
