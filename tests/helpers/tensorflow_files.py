"""Small DIGITS TensorFlow files for the tests, and their networks. TensorFlow is imported only when a test runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from multiseg.network import Network, NetworkSpec

HEAD = """
from model import Tower
from utils import model_property
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits

class UserModel(Tower):
"""
LOSS = """
    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
"""


def model(inference: str, rest: str = LOSS, head: str = HEAD) -> str:
    """A network file whose inference is these lines."""
    lines = inference.strip().splitlines()
    return (
        f"{head}    @model_property\n    def inference(self):\n" + "".join(f"        {line}\n" for line in lines) + rest
    )


# one factor and one offset: what it computes and how it learns is arithmetic
LINEAR = "return slim.conv2d(self.x, 1, [1, 1], activation_fn=None, scope='only')"


def network(folder: Path, text: str, **settings: Any) -> Network:
    """The network of a file with this text, for 8x8 grey images unless told otherwise; plain gradient descent."""
    from multiseg_tensorflow.network import Network

    return Network(specification(folder, text, **settings))


def specification(folder: Path, text: str, **settings: Any) -> NetworkSpec:
    """The specification of :func:`network`, with the file in its place."""
    path = folder / "net.py"
    path.write_text(text)
    spec = NetworkSpec(
        model=str(path), input_shape=(1, 8, 8), label_shape=(1, 8, 8), solver={"name": "sgd"}, loss=None, seed=1,
        batch_size=None, val_batch_size=None, threads=2, device="cpu", lowering=True,
    )  # fmt: skip
    return replace(spec, **settings)
