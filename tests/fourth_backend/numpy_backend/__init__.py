"""A fourth backend, in NumPy, as anyone may install one: its distribution lies beside this package."""

from __future__ import annotations

from pathlib import Path

from multiseg.backend import Backend, FileKind


def _is_model(head: bytes, path: Path) -> bool:
    return head.lstrip().startswith(b'{"numpy network"')


def _is_weights(head: bytes, path: Path) -> bool:
    return path.suffix == ".npz" and head.startswith(b"PK")


backend = Backend(
    name="numpy",
    title="NumPy",
    module="numpy_backend.network",
    framework="numpy",
    install="pip install numpy-backend",
    kinds=(
        FileKind("NumPy network", (".json",), "network", _is_model),
        FileKind("NumPy weights", (".npz",), "weights", _is_weights),
    ),
    reader="numpy_backend.reader",
    reader_needs_framework=False,
    default_model="numpy_backend:model.json",
    data_order="NCHW",
    channel_order="RGB",
    learning_rate=1e-6,
    batch_size=8,
    val_batch_size=8,
    loss="l2",
    losses=(
        "l1",
        "smooth_l1",
        "l2",
        "huber",
        "cross_entropy",
        "dice",
        "cross_entropy+dice",
        "focal",
        "binary_cross_entropy",
    ),
    solvers={
        "sgd": {"momentum": 0.9},
        "adam": {"momentum": 0.9, "momentum2": 0.999, "delta": 1e-8},
    },
)
