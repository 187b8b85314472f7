"""The loss of a validation does not depend on its batch size, however a TensorFlow file normalises its loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers.void_masks import losses, void_masks
from multiseg import Job

pytestmark = pytest.mark.needs("tensorflow")

NETWORK = """
class UserModel(Tower):
    @model_property
    def inference(self):
        kernel = tf.get_variable("conv/w", [3, 3, 1, 3], initializer=tf.random_normal_initializer(stddev=0.01))
        bias = tf.get_variable("conv/b", [3], initializer=tf.zeros_initializer())
        return tf.nn.conv2d(self.x, kernel, 1, "SAME") + bias

    @model_property
    def loss(self):
        labels = tf.cast(self.y[..., 0], tf.int32)
        counts = tf.not_equal(labels, 255)
        weights = tf.cast(counts, tf.float32)
        labels = tf.where(counts, labels, tf.zeros_like(labels))
        values = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=self.inference, labels=labels)
        return LOSS
"""
BATCH = 4  # of training
Expected = Callable[[Any, Any], float]
CASES: dict[str, Expected] = {
    "tf.losses.sparse_softmax_cross_entropy(labels, self.inference, weights)": lambda v, n: v.sum() / n.sum(),
    "tf.reduce_sum(values * weights) / tf.maximum(tf.reduce_sum(weights), 1.0)": lambda v, n: v.sum() / n.sum(),
    "tf.reduce_mean(values * weights)": lambda v, n: v.mean(),
    "tf.reduce_sum(values * weights) / tf.cast(tf.shape(values)[0], tf.float32)": lambda v, n: v.sum() / len(v),
    "tf.reduce_sum(values * weights) * 0.1": lambda v, n: 0.1 * v.sum() / len(v) * BATCH,
    "2.0 * tf.div_no_nan(tf.reduce_sum(values * weights), tf.reduce_sum(weights)) + tf.reduce_mean(values * weights)":
        lambda v, n: 2 * v.sum() / n.sum() + v.mean(),
}  # fmt: skip


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    return void_masks(tmp_path_factory.mktemp("masks"))


@pytest.mark.parametrize("loss", CASES)
def test_the_loss_does_not_depend_on_the_batch_size(masks: multiseg.Dataset, loss: str, tmp_path: Path) -> None:
    model = tmp_path / "net.py"
    model.write_text(NETWORK.replace("LOSS", loss))
    job = Job(
        dataset=masks, backend="tensorflow", model=model, epochs=1, batch_size=BATCH, val_batch_size=3, learning_rate=1e-6,
        seed=1, threads=1,
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        features, labels = masks.val.read(range(len(masks.val)))
        assert labels is not None
        value = CASES[loss](*losses(run.predict(features), labels))
        assert run.history[-1]["val_loss"] == pytest.approx(value, rel=1e-5)
        for size in (1, 4, len(features)):
            tested = run.test_db(masks.path / "val_db" / "features", batch_size=size)
            assert tested["val_loss"] == pytest.approx(value, rel=1e-5), size
        assert np.sum(tested["confusion"]) == (labels != 255).sum()
