"""A fault of TensorFlow itself is found in a user's file, reduced to three layers, and shown by TensorFlow alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import multiseg

NETWORK = """
from model import Tower
from utils import model_property
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits

class UserModel(Tower):
    @model_property
    def inference(self):
        n = slim.conv2d(self.x, 4, [3, 3], activation_fn=None, scope='before')
        n = slim.conv2d(tf.tanh(n), 4, [3, 3], activation_fn=None, scope='conv')
        n = tf.maximum(n, 2 * n)
        return slim.conv2d(n, 3, [3, 3], activation_fn=None, scope='after')

    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
"""


@pytest.mark.needs("tensorflow")
def test_a_fault_of_a_framework_is_reduced(coloured: multiseg.Dataset, tmp_path: Path) -> None:
    """docs/upstream-faults.md: with oneDNN, this maximum is computed as a leaky ReLU with the slope 2."""
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    found = multiseg.check_parity(
        coloured, models=path, backends=["tensorflow"], steps=0, threads=1, batch_size=2, reduce=tmp_path / "parts",
        lowering=False,
    )  # fmt: skip
    assert found.first is not None and found.first.stage == "output"
    assert all(row.ok for row in found.rows if row.stage == "forward")
    facts = json.loads((tmp_path / "parts/tensorflow/reduced.json").read_text())
    assert len(facts["layers"]) == 3 and {"mul", "Maximum"} <= set(facts["layers"])
    assert facts["differs_on_its_own"] and facts["shown_by_the_framework_alone"]
    assert "multiseg" not in (tmp_path / "parts/tensorflow/show.py").read_text()
    assert "reduced to 3 of" in found.reduced[0]


@pytest.mark.needs("tensorflow")
@pytest.mark.parametrize(
    "maximum", ["n, 2 * n", "n / 0.5, n", "n + n, n", "n, n * tf.exp(1.0)", "n, 0.3 * n", "n, 2 * n + 1"]
)
def test_lowering_avoids_it(maximum: str, coloured: multiseg.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(NETWORK.replace("tf.maximum(n, 2 * n)", f"tf.maximum({maximum})"))
    found = multiseg.check_parity(coloured, models=path, backends=["tensorflow"], steps=1, threads=1, batch_size=2)
    assert found.ok, found.first_divergence
