"""Convolutions as matrix products compute what TensorFlow's convolutions do, forward and backward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_files import LINEAR, model, network

pytestmark = pytest.mark.needs("tensorflow")

# kernel height and width, rows and columns of patches, channels of the image and of the patches, images
SHAPES = [
    (4, 4, 2, 2, 1, 8, 3),
    (2, 5, 3, 1, 3, 4, 1),
    (1, 3, 2, 4, 2, 5, 4),
    (3, 1, 1, 3, 3, 2, 2),
    (8, 8, 1, 1, 1, 16, 5),
    (1, 1, 4, 3, 2, 3, 2),
]


def two_layers(kernel: tuple[int, int], channels: int, hidden: int, padding: str = "VALID") -> str:
    return f"""
net = slim.conv2d(self.x, {hidden}, {list(kernel)}, stride={list(kernel)}, padding='{padding}', scope='down')
with tf.control_dependencies([tf.check_numerics(net, 'here')]):
    return slim.conv2d_transpose(net, {channels}, {list(kernel)}, stride={list(kernel)}, padding='{padding}',
                                 activation_fn=None, scope='up')
"""


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(("height", "width", "rows", "columns", "channels", "hidden", "count"), SHAPES)
def test_outputs_losses_and_training_are_those_of_the_convolutions(
    tmp_path: Path,
    height: int,
    width: int,
    rows: int,
    columns: int,
    channels: int,
    hidden: int,
    count: int,
    padding: str,
) -> None:
    text = model(two_layers((height, width), channels, hidden, padding))
    shape = (channels, rows * height, columns * width)
    plain, lowered = (
        network(
            tmp_path, text, input_shape=shape, label_shape=shape, lowering=on, solver={"name": "sgd", "momentum": 0.9}
        )
        for on in (False, True)
    )
    assert (plain.describe()["lowered"], lowered.describe()["lowered"]) == ([], ["down", "up"])
    assert plain.describe()["parameters"] == lowered.describe()["parameters"]
    assert all(np.array_equal(value, plain.get_weights()[name]) for name, value in lowered.get_weights().items())
    draw = np.random.default_rng(0)
    for size in (count, count + 1):
        x, y = (draw.uniform(-1, 1, (size, *shape[1:], channels)).astype(np.float32) for _ in range(2))
        (output, loss, _), (expected, expected_loss, _) = lowered.predict(x, y), plain.predict(x, y)
        assert output == pytest.approx(expected, abs=1e-5)
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        assert lowered.train_step(x, y, 0.1) == pytest.approx(plain.train_step(x, y, 0.1), rel=1e-5)
    expected_weights = plain.get_weights()
    for name, value in lowered.get_weights().items():
        assert value == pytest.approx(expected_weights[name], abs=1e-5), name


def test_plain_layers_before_and_after_learn_the_same(tmp_path: Path) -> None:
    text = model(f"""
self.x = slim.conv2d(self.x, 3, [3, 3], scope='before')
def inner():{two_layers((4, 4), 3, 7).replace(chr(10), chr(10) + "    ")}
return slim.conv2d(inner(), 1, [3, 3], activation_fn=None, scope='after')
""")
    draw = np.random.default_rng(0)
    made: list[dict[str, Any]] = []
    for lowering in (True, False):
        loaded = network(tmp_path, text, lowering=lowering)
        for seed in range(5):
            draw = np.random.default_rng(seed)
            loaded.train_step(*(draw.uniform(-1, 1, (4, 8, 8, 1)).astype(np.float32) for _ in range(2)), 0.1)
        made.append(loaded.get_weights())
    assert {name.partition(".")[0] for name in made[0]} == {"before", "down", "up", "after"}
    for name, value in made[0].items():
        assert value == pytest.approx(made[1][name], abs=1e-5), name


@pytest.mark.parametrize(
    "layer",
    [
        "slim.conv2d(self.x, 1, [3, 3], stride=1, scope='only')",
        "slim.conv2d(self.x, 4, [2, 2], stride=1, padding='SAME', scope='only')",
        "slim.conv2d(self.x, 4, [3, 3], stride=3, padding='SAME', scope='only')",
        "slim.conv2d(self.x, 4, [2, 2], rate=2, padding='VALID', scope='only')",
        "slim.conv2d(tf.tile(self.x, [1, 1, 1, 4]), 4, [2, 2], 2, 'VALID', scope='only') if False else "
        "tf.nn.conv2d(tf.tile(self.x, [1, 1, 1, 4]), tf.get_variable('w', [2, 2, 2, 4]), [1, 2, 2, 1], 'VALID')",
        "slim.conv2d_transpose(self.x, 1, [3, 3], stride=2, scope='only')",
    ],
)
def test_other_convolutions_stay_as_they_are(tmp_path: Path, layer: str) -> None:
    text = model(f"net = {layer}\nreturn tf.image.resize_bilinear(tf.reduce_sum(net, 3, keepdims=True), [8, 8])")
    loaded = network(tmp_path, text)
    assert loaded.describe()["lowered"] == []
    output, _, _ = loaded.predict(np.ones((2, 8, 8, 1), np.float32), None)
    assert output.shape == (2, 8, 8, 1)


def test_a_file_with_its_own_gradient_function_is_left_alone(tmp_path: Path) -> None:
    text = model("""
@tf.custom_gradient
def reversed_gradient(x):
    return tf.identity(x), lambda g: -g
return reversed_gradient(slim.conv2d(self.x, 1, [1, 1], activation_fn=None, scope='only'))
""")
    x = np.ones((1, 8, 8, 1), np.float32)
    backwards, forwards = network(tmp_path, text), network(tmp_path, model(LINEAR))
    backwards.set_weights(forwards.get_weights())
    before = forwards.get_weights()["only.bias"]
    backwards.train_step(x, 9 * x, 0.1)
    forwards.train_step(x, 9 * x, 0.1)
    assert (backwards.describe()["lowered"], forwards.describe()["lowered"]) == ([], ["only"])
    assert backwards.get_weights()["only.bias"] - before == pytest.approx(before - forwards.get_weights()["only.bias"])
