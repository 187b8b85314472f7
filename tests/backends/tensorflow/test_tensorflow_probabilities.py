"""Cross entropies of a sigmoid are recognised by their operations: the outputs are logits, and labels have a range."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow
from multiseg_tensorflow.probabilities import of_graph
from PIL import Image

import multiseg
from multiseg import Job

pytestmark = pytest.mark.needs("tensorflow")

tf = tensorflow.compat.v1
LOGITS, RANGE = {"logits": True}, {"label_range": [0, 1]}


def cross_entropy(output: Any, labels: Any, name: str | None = None) -> Any:
    return tf.nn.sigmoid_cross_entropy_with_logits(logits=output, labels=labels, name=name)


def weighted(output: Any, labels: Any) -> Any:
    return tf.nn.weighted_cross_entropy_with_logits(logits=output, labels=labels, pos_weight=2.0)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (cross_entropy, LOGITS | RANGE),
        (lambda o, y: cross_entropy(o, y, "named"), LOGITS | RANGE),
        (lambda o, y: tf.losses.sigmoid_cross_entropy(y, o), LOGITS | RANGE),
        (lambda o, y: cross_entropy(tf.reshape(o, [-1]), tf.reshape(y, [-1])), LOGITS | RANGE),
        (weighted, LOGITS | RANGE),
        (lambda o, y: cross_entropy(o, y / 255), LOGITS | {"label_range": [0, 255]}),
        (lambda o, y: cross_entropy(o, 0.1 * y), LOGITS | {"label_range": [0, 10]}),
        (lambda o, y: cross_entropy(o, tf.cast(y > 127, tf.float32)), LOGITS),
        (lambda o, y: cross_entropy(o, y) * tf.cast(tf.not_equal(y, 255), tf.float32), LOGITS),
        (lambda o, y: tf.square(o - y), {}),
        (lambda o, y: tf.math.log1p(tf.exp(o)) - y, {}),
    ],
)
def test_what_a_loss_computes(loss: Callable[[Any, Any], Any], expected: dict[str, Any]) -> None:
    with tf.Graph().as_default() as graph:
        output = tf.placeholder(tf.float32, [None, 4, 4, 1]) * 3
        value = loss(output, tf.placeholder(tf.float32, [None, 4, 4, 1]))
        tf.gradients(value, output)
    assert of_graph(graph, output) == expected


NETWORK = """
class UserModel(Tower):
    @model_property
    def inference(self):
        return tf.layers.conv2d(tf.reshape(self.x, [-1, *self.input_shape]), 1, 3, padding="same", name="conv")

    @model_property
    def loss(self):
        return tf.losses.sigmoid_cross_entropy(self.y / 255, self.inference)
"""


def test_masks_of_255_that_the_loss_divides(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    for name in ("input", "target"):
        (tmp_path / name).mkdir()
    for number in range(8):
        mask = draw.random((8, 8)) < 0.3
        Image.fromarray((100 * mask + 50).astype(np.uint8)).save(tmp_path / "input" / f"{number}.png")
        Image.fromarray((mask * 255).astype(np.uint8)).save(tmp_path / "target" / f"{number}.png")
    dataset = multiseg.Dataset.create(
        tmp_path / "ds",
        input=tmp_path / "input",
        target=tmp_path / "target",
        val_percent=50,
        seed=1,
        foreground="light",
    )
    (tmp_path / "net.py").write_text(NETWORK)
    job = Job(
        dataset=dataset, backend="tensorflow", model=tmp_path / "net.py", epochs=1, batch_size=2, learning_rate=1e-4, seed=1,
        threads=1,
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        features, labels = dataset.val.read(range(len(dataset.val)))
        assert labels is not None
        # the label 128 of 0 to 255 is the probability 128/255
        predicted, true = 1 / (1 + np.exp(-np.float64(run.predict(features)))) >= 128 / 255, labels >= 128
        row = run.history[-1]
        assert row["iou"] == pytest.approx((predicted & true).sum() / (predicted | true).sum(), abs=1e-12)
        assert (row["l1"], row["l2"]) == (None, None)
