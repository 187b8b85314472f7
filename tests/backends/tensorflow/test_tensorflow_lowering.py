"""Which convolutions of a TensorFlow graph become matrix products; what they compute is in tests/contract/test_lowering.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tensorflow_files import LINEAR, model, network
from multiseg.errors import ModelError

pytestmark = pytest.mark.needs("tensorflow")


def check_equal(plain: Any, lowered: Any, x: Any, y: Any) -> None:
    """Outputs, losses and trained weights are the same: sums of at most 100 products of float32, near 1."""
    assert lowered.predict(x, None)[0] == pytest.approx(plain.predict(x, None)[0], abs=1e-5)
    assert lowered.train_step(x, y, 0.1) == pytest.approx(plain.train_step(x, y, 0.1), rel=1e-5)
    expected = plain.get_weights()
    for name, value in lowered.get_weights().items():
        assert value == pytest.approx(expected[name], abs=1e-5), name


@pytest.mark.parametrize(
    ("padding", "size", "known", "lowerable"),
    [
        ("VALID", 8, True, ["down", "up"]),
        ("SAME", 8, True, ["down", "up"]),  # which pads nothing
        ("VALID", 9, True, ["down", "up"]),  # windows leave a rest, which "up" gives back as zeros
        ("VALID", 9, False, ["down", "up"]),
        ("SAME", 9, True, []),
        ("SAME", 8, False, []),  # nobody knows whether it pads
    ],
)
def test_sizes_that_windows_cover_or_not(
    tmp_path: Path, padding: str, size: int, known: bool, lowerable: list[str]
) -> None:
    text = model(f"""
{"" if known else "self.x = tf.placeholder_with_default(self.x, [None, None, None, 1])"}
net = slim.conv2d(self.x, 5, [4, 2], stride=[4, 2], padding='{padding}', scope='down')
kernel = tf.get_variable('up/weights', [4, 2, 1, 5])
with tf.control_dependencies([tf.check_numerics(net, 'here')]):
    net = tf.nn.conv2d_transpose(net, kernel, tf.shape(self.x), [1, 4, 2, 1], '{padding}')
return tf.reshape(net, [-1, {size}, {size}, 1])
""")
    shape = (1, size, size)
    plain, lowered = (
        network(tmp_path, text, input_shape=shape, label_shape=shape, lowering=on) for on in (False, True)
    )
    assert (plain.describe()["lowered"], lowered.describe()["lowered"]) == ([], lowerable)
    draw = np.random.default_rng(0)
    x, y = (draw.uniform(-1, 1, (3, size, size, 1)).astype(np.float32) for _ in range(2))
    check_equal(plain, lowered, x, y)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(
    ("size", "known", "mixed"), [(8, True, False), (9, True, False), (9, False, False), (9, True, True)]
)
def test_a_kernel_of_one_pixel_reads_single_pixels(
    tmp_path: Path, padding: str, size: int, known: bool, mixed: bool
) -> None:
    """With oneDNN its own gradient damages the heap (docs/upstream-faults.md): it is only computed by hand here."""
    text = model(f"""
{"" if known else "self.x = tf.placeholder_with_default(self.x, [None, None, None, 1])"}
return slim.conv2d(self.x, 1, [1, 1], stride=[2, 3], padding='{padding}', activation_fn=None, scope='only')
""")
    shapes = {"input_shape": (1, size, size), "label_shape": (1, -(-size // 2), -(-size // 3))}
    lowered = network(tmp_path, text, mixed_sizes=mixed, **shapes)
    assert lowered.describe()["lowered"] == ["only"]
    draw = np.random.default_rng(0)
    x = draw.uniform(-1, 1, (3, size, size, 1)).astype(np.float32)
    read = x[:, ::2, ::3]
    y = draw.uniform(-1, 1, read.shape).astype(np.float32)
    before = {name.rpartition(".")[2]: value.item() for name, value in lowered.get_weights().items()}
    output, loss, _ = lowered.predict(x, y)
    assert output == pytest.approx(read * before["weight"] + before["bias"], abs=1e-6)
    difference = output.astype(np.float64) - y
    scale = loss / np.mean(difference**2)  # of the file's loss
    lowered.train_step(x, y, 0.1)
    after = {name.rpartition(".")[2]: value.item() for name, value in lowered.get_weights().items()}
    for name, factor in (("weight", read), ("bias", 1.0)):
        slope = 2 * scale * np.mean(difference * factor)
        assert before[name] - after[name] == pytest.approx(0.1 * slope, abs=1e-6), name


@pytest.mark.parametrize("known", [True, False])
def test_a_convolution_of_one_channel_reads_its_image_alone(tmp_path: Path, known: bool) -> None:
    """oneDNN reads beyond it where the output is one pixel wide (docs/upstream-faults.md)."""
    text = model(f"""
{"" if known else "self.x = tf.placeholder_with_default(self.x, [None, None, None, 1])"}
return slim.conv2d(self.x, 2, [3, 3], stride=[1, 2], padding='VALID', activation_fn=None, scope='only')
""")
    lowered = network(tmp_path, text, input_shape=(1, 4, 3), label_shape=(2, 2, 1))
    assert lowered.describe()["lowered"] == ["only"]
    draw = np.random.default_rng(0)
    x, y = draw.uniform(-1, 1, (3, 4, 3, 1)).astype(np.float32), draw.uniform(-1, 1, (3, 2, 1, 2)).astype(np.float32)
    windows = np.stack([x[:, row : row + 3, :, 0] for row in range(2)], 1)  # of each image and row of the output
    for _ in range(20):
        before = {name.rpartition(".")[2]: value for name, value in lowered.get_weights().items()}
        expected = np.einsum("nrhw,ohw->nro", windows, before["weight"][:, 0]) + before["bias"]
        freed = [np.full(size, 1e20, np.float32) for size in range(1, 400)]  # what is in memory that is used again
        del freed
        output, loss, _ = lowered.predict(x, y)
        assert output[:, :, 0] == pytest.approx(expected, abs=1e-5)
        difference = expected.astype(np.float64) - y[:, :, 0]
        scale = loss / np.mean(difference**2)  # of the file's loss
        lowered.train_step(x, y, 0.01)
        after = {name.rpartition(".")[2]: value for name, value in lowered.get_weights().items()}
        slope = 2 * scale * np.einsum("nro,nrhw->ohw", difference, windows) / difference.size
        assert before["weight"][:, 0] - after["weight"][:, 0] == pytest.approx(0.01 * slope, abs=1e-5)


def test_the_gradient_of_a_transposed_convolution_into_one_channel_reads_its_image_alone(tmp_path: Path) -> None:
    """It is a convolution of one channel, which oneDNN reads beyond if the grid is one pixel wide."""
    text = model("""
scale = tf.get_variable('scale/weights', [2], initializer=tf.ones_initializer())
kernel = tf.get_variable('only/weights', [3, 3, 1, 2])
grid = tf.concat([self.x, 2 * self.x], 3) * scale
return tf.nn.conv2d_transpose(grid, kernel, [tf.shape(self.x)[0], 4, 3, 1], [1, 1, 2, 1], 'VALID')
""")
    lowered = network(tmp_path, text, input_shape=(1, 2, 1), label_shape=(1, 4, 3))
    assert lowered.describe()["lowered"] == ["only"]
    draw = np.random.default_rng(0)
    x, y = (draw.uniform(-1, 1, (3, *size)).astype(np.float32) for size in ((2, 1, 1), (4, 3, 1)))
    for _ in range(20):
        weights = [value.astype(np.float64) for value in lowered.get_weights().values()]
        scale, kernel = sorted(weights, key=lambda value: value.ndim)
        grid = x[..., 0] * np.array([1.0, 2.0])
        parts = np.einsum("nrc,chw->nrchw", grid, kernel[:, 0])
        made = np.zeros((3, 4, 3))
        for row in range(2):
            made[:, row : row + 3] += np.einsum("nchw,c->nhw", parts[:, row], scale)
        freed = [np.full(size, 1e20, np.float32) for size in range(1, 400)]  # what is in memory that is used again
        del freed
        output, loss, _ = lowered.predict(x, y)
        assert output[..., 0] == pytest.approx(made, abs=1e-5)
        difference = made - y[..., 0]
        factor = loss / np.mean(difference**2)  # of the file's loss
        lowered.train_step(x, y, 0.01)
        slope = np.zeros(2)
        for row in range(2):
            slope += np.einsum("nchw,nhw->c", parts[:, row], difference[:, row : row + 3])
        after = next(value for value in lowered.get_weights().values() if value.ndim == 1)
        assert scale - after == pytest.approx(0.02 * factor * slope / difference.size, abs=1e-5)


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


@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_with_a_large_kernel_and_its_gradients(tmp_path: Path, transposed: bool) -> None:
    """By hand in float64; both gradients are products of the size of the kernel."""
    text = model(f"""
scale = tf.get_variable('scale', [64], initializer=tf.ones_initializer())
kernel = tf.get_variable('kernel', {[4096, 64] if transposed else [64, 4096]})
rows = tf.reshape(self.x, [-1, 64]) * scale
return tf.reshape(tf.matmul(rows, kernel, transpose_b={transposed}), [-1, 64, 64, 1])
""")
    net = network(tmp_path, text, input_shape=(1, 8, 8), label_shape=(1, 64, 64))
    kinds = [op.type for op in net._main.graph.get_operations() if "BatchMatMul" in op.type]
    assert len(kinds) == 1 and net.describe()["lowered"] == []
    draw = np.random.default_rng(0)
    x, y = (draw.uniform(-1, 1, (20, side, side, 1)).astype(np.float32) for side in (8, 64))
    scale, kernel = sorted((value.astype(np.float64) for value in net.get_weights().values()), key=lambda v: v.ndim)
    matrix = kernel.T  # neutral kernels of dense layers are (outputs, inputs), as the file's own is if it is transposed
    rows = x.reshape(20, 64).astype(np.float64)
    made = (rows * scale) @ matrix
    output, loss, _ = net.predict(x, y)
    assert output.reshape(20, -1) == pytest.approx(made, abs=1e-5)
    difference = made - y.reshape(20, -1)
    slope = 2 * loss / np.mean(difference**2) * difference / difference.size  # by the file's loss
    net.train_step(x, y, 1.0)
    after = sorted(net.get_weights().values(), key=lambda value: value.ndim)
    of_kernel = (rows * scale).T @ slope
    assert scale - after[0] == pytest.approx(((slope @ matrix.T) * rows).sum(0), abs=1e-5)
    assert kernel - after[1] == pytest.approx(of_kernel.T, abs=1e-6)


@pytest.mark.parametrize("repeated", ["while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, step(v)), [0, self.x])[1]",
                                      "cond(tf.reduce_sum(self.x) > -1e9, lambda: step(self.x), lambda: self.x)"])  # fmt: skip
def test_operations_in_loops_and_conditions_stay_as_they_are(tmp_path: Path, repeated: str) -> None:
    """The gradient of a loop refers to the operations in it."""
    text = model(f"""
kernel = tf.get_variable('down/weights', [4, 4, 1, 16])
def step(images):
    return tf.reshape(tf.nn.conv2d(tf.reshape(images, [-1, 8, 8, 1]), kernel, [1, 4, 4, 1], 'VALID'), [-1, 8, 8, 1])
self.x = tf.reshape(slim.conv2d(self.x, 4, [2, 2], 2, 'VALID', scope='before'), [-1, 8, 8, 1])
return slim.conv2d(tf.{repeated}, 1, [1, 1], activation_fn=None, scope='after')
""")
    plain, lowered = (network(tmp_path, text, lowering=on) for on in (False, True))
    assert lowered.describe()["lowered"] == ["before", "after"]
    draw = np.random.default_rng(0)
    x, y = (draw.uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32) for _ in range(2))
    check_equal(plain, lowered, x, y)
    output, _, layers = lowered.predict(x, None, activations=True)
    assert all(np.isfinite(value).all() for value in (output, *layers.values()))


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


MAXIMUM = """
net = slim.conv2d(self.x, 1, [3, 3], activation_fn=None, scope='only')
@tf.custom_gradient
def square(x):
    return x * x, lambda g: 2 * x * g
"""


@pytest.mark.parametrize(
    ("output", "mixed"),
    [
        ("tf.maximum(net, 2 * net)", False),
        ("tf.maximum(net, 2 * net)", True),
        ("tf.maximum(net, 2 * net) + 0 * square(self.x)", False),
        ("tf.while_loop(lambda i, v: i < 1, lambda i, v: (i + 1, tf.maximum(v, 2 * v)), [0, net])[1]", False),
        ("tf.cond(tf.reduce_sum(self.x) > -1e9, lambda: tf.maximum(net, 2 * net), lambda: net)", False),
        ("2 * tf.cond(tf.reduce_sum(self.x) > -1e9, lambda: tf.maximum(net, 0.5 * net), lambda: net)", False),
    ],
    ids=["alone", "mixed sizes", "custom gradient", "loop", "condition", "condition, leaky ReLU"],
)  # fmt: skip
def test_the_maximum_of_a_value_and_its_multiple(tmp_path: Path, output: str, mixed: bool) -> None:
    """oneDNN takes it for a leaky ReLU in prediction (docs/upstream-faults.md), also where it cannot be replaced."""
    net = network(tmp_path, model(f"{MAXIMUM}return {output}"), mixed_sizes=mixed)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 1)).astype(np.float32)
    kernel, bias = (value.astype(np.float64) for value in net.get_weights().values())
    around = np.pad(x[0, :, :, 0], 1).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3))
    value = np.einsum("hwij,ij->hw", windows, kernel[0, 0]) + bias
    assert net.predict(x, None)[0][0, :, :, 0] == pytest.approx(np.maximum(value, 2 * value), abs=1e-5)


@pytest.mark.parametrize(("padding", "size"), [("VALID", 40), ("SAME", 32), ("SAME", 29)])
def test_large_upsampling_is_one_product(tmp_path: Path, padding: str, size: int) -> None:
    """As in FCN-8s: blocks of stride x stride, of which padding cuts a part off."""
    text = model(f"""
net = slim.conv2d(self.x, 3, [8, 8], stride=8, padding='SAME', scope='down')
net.set_shape([None, 4, 4, 3])
kernel = tf.get_variable('up/weights', [16, 16, 1, 3])
return tf.nn.conv2d_transpose(net, kernel, [tf.shape(net)[0], {size}, {size}, 1], [1, 8, 8, 1], '{padding}')
""")
    shapes = {"input_shape": (1, 32, 32), "label_shape": (1, size, size)}
    plain, lowered = (network(tmp_path, text, lowering=on, **shapes) for on in (False, True))
    assert "up" in lowered.describe()["lowered"] and not plain.describe()["lowered"]
    draw = np.random.default_rng(0)
    x = draw.uniform(-1, 1, (3, 32, 32, 1)).astype(np.float32)
    y = draw.uniform(-1, 1, (3, size, size, 1)).astype(np.float32)
    check_equal(plain, lowered, x, y)


SCORES = """
self.x = tf.identity(self.x)
scale = tf.get_variable('scale', [4], initializer=tf.ones_initializer())
return self.x * scale
"""


OF_CLASSES: dict[str, Any] = {
    "input_shape": (4, 3, 5), "label_shape": (1, 3, 5), "labels": "classes", "loss": "cross_entropy",
}  # fmt: skip


def test_the_cross_entropy_of_classes_and_its_gradient(tmp_path: Path) -> None:
    """By hand in float64, with scores whose powers exceed float32."""
    draw = np.random.default_rng(0)
    x = draw.normal(0, 1, (2, 3, 5, 4)).astype(np.float32)
    x[0, 0] *= 1e4
    labels = draw.integers(0, 4, (2, 3, 5, 1))
    labels[1, 1] = 9
    net = network(tmp_path, model(SCORES), ignore_index=9, **OF_CLASSES)
    assert not any(op.type.startswith("SparseSoftmax") for op in net._main.graph.get_operations())
    before = net.get_weights()
    wide, flat = x.reshape(-1, 4).astype(np.float64), labels.ravel()
    counts = flat != 9
    p = np.exp(wide - wide.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    own = np.where(counts, flat, 0)
    losses = wide.max(1) + np.log(np.exp(wide - wide.max(1, keepdims=True)).sum(1)) - wide[np.arange(len(wide)), own]
    slope = ((p - np.eye(4)[own]) * wide)[counts].sum(0) / counts.sum()
    loss = net.train_step(x, labels.astype(np.float32), 1e-4)
    assert loss == pytest.approx(losses[counts].mean(), rel=1e-5)
    ((name, value),) = net.get_weights().items()
    assert before[name] - value == pytest.approx(1e-4 * slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("lowering", "label"), [(True, 4), (True, -1), (False, 4)])
def test_a_label_that_is_no_class_is_one_line(tmp_path: Path, lowering: bool, label: int) -> None:
    net = network(tmp_path, model(SCORES), lowering=lowering, **OF_CLASSES)
    labels = np.zeros((2, 3, 5, 1), np.float32)
    labels[1, 2, 2] = label
    words = rf"Received a label value of {label} which is outside the valid range of \[0, 4\)\.$"
    with pytest.raises(ModelError, match=words):
        net.train_step(np.zeros((2, 3, 5, 4), np.float32), labels, 0.1)
