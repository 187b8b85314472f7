"""Weights for a plain TensorFlow graph: its own program restores the checkpoint that is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import multiseg
from helpers.tensorflow_graphs import Written, small, tf
from multiseg.model_files import weights_file
from multiseg.model_files.weights_file import NeutralWeights

pytestmark = pytest.mark.needs("tensorflow")


def test_a_graph_restores_the_weights_that_come_from_elsewhere(tmp_path: Path, here: None) -> None:
    written = Written(tmp_path, small)
    there = multiseg.convert(tmp_path / "saved", "safetensors", tmp_path / "w.safetensors")
    weights = weights_file.read(there.path).weights
    assert there.channel_order == "RGB" and len(weights) == 6
    doubled = {name: value * 2 if name.startswith("up") else value for name, value in weights.items()}
    weights_file.write(tmp_path / "w.safetensors", NeutralWeights(doubled, "RGB"))

    multiseg.convert(tmp_path / "w.safetensors", "tf", tmp_path / "new.ckpt", network=tmp_path / "net.meta")
    v1 = tf()
    with v1.Graph().as_default(), v1.Session() as session:
        saver = v1.train.import_meta_graph(str(tmp_path / "net.meta"))  # the program's own, not the one beside
        saver.restore(session, str(tmp_path / "new.ckpt"))
        made = session.run("output:0", {"image:0": written.images})
    np.testing.assert_allclose(made, 2 * written.expected, rtol=1e-6)
