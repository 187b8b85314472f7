"""The loss of a validation does not depend on its batch size, however a TensorFlow file normalises its loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import multiseg
from helpers.void_masks import check_loss_of_any_batch_size
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


@pytest.mark.parametrize("loss", CASES)
def test_the_loss_does_not_depend_on_the_batch_size(void_dataset: multiseg.Dataset, loss: str, tmp_path: Path) -> None:
    model = tmp_path / "net.py"
    model.write_text(NETWORK.replace("LOSS", loss))
    job = Job(dataset=void_dataset.path, backend="tensorflow", model=model, batch_size=BATCH, learning_rate=1e-6)
    check_loss_of_any_batch_size(job, tmp_path, lambda values, counted, labels: CASES[loss](values, counted))
