"""Training, other sizes, and checkpoints of small TensorFlow networks, against arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from helpers.tensorflow_files import LINEAR, LOSS, model, network
from multiseg.errors import ModelError, SettingsError

pytestmark = pytest.mark.needs("tensorflow")

Array = npt.NDArray[np.float32]

REGULARISED = LINEAR.replace("scope=", "weights_regularizer=slim.l2_regularizer(0.05), scope=")
NORMALISED = [
    "return slim.batch_norm(self.x, is_training=self.is_training, decay=0.5, scope='norm')",
    "return slim.batch_norm(self.x, is_training=self.is_training, decay=0.5, scope='norm', "
    "updates_collections=tf.GraphKeys.UPDATE_OPS)",
    "return slim.batch_norm(self.x, is_training=self.is_training, decay=0.5, scope='norm', updates_collections=None)",
    "return slim.batch_norm(self.x, is_training=self.is_training, decay=0.5, scope='norm', fused=False)",
    "return slim.batch_norm(self.x, is_training=tf.constant(self.is_training), decay=0.5, scope='norm')",
    "return tf.layers.batch_normalization(self.x, training=self.is_training, momentum=0.5, name='norm')",
]
DROPPED = "return slim.conv2d(slim.dropout(self.x, is_training=self.is_training), 1, [3, 3], scope='only')"
CLIPPED = """
    def gradientUpdate(self, grad):
        return [(tf.clip_by_value(g, -1., 1.), v) for g, v in grad]
"""
TWO_LOSSES = """
    @model_property
    def loss(self):
        difference = self.inference - self.y
        weight, bias = tf.trainable_variables()
        return [{'loss': tf.reduce_mean(difference), 'vars': [weight]},
                {'loss': -2 * tf.reduce_mean(difference), 'vars': [bias]}]
"""
SOLVERS: list[dict[str, Any]] = [
    {"name": "sgd"},
    {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    {"name": "nesterov", "momentum": 0.9},
    {"name": "adam", "momentum": 0.9, "momentum2": 0.99, "delta": 1e-8},
]


def batch(seed: int, count: int = 4, size: int = 8) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    return tuple(draw.uniform(-1, 1, (count, size, size, 1)).astype(np.float32) for _ in range(2))  # type: ignore[return-value]


def scalars(loaded: Any) -> npt.NDArray[np.float64]:
    """Factor and offset of the linear network."""
    weights = loaded.get_weights()
    return np.array([weights["only.weight"].item(), weights["only.bias"].item()])


def gradient(at: npt.NDArray[np.float64], x: Array, y: Array) -> npt.NDArray[np.float64]:
    """Of the mean squared difference of the linear network."""
    difference = at[0] * x.astype(np.float64) + at[1] - y
    return np.array([2 * (difference * x).mean(), 2 * difference.mean()])


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: f"{solver['name']} {solver.get('momentum', 0)}")
def test_solvers_follow_their_formulas(tmp_path: Path, solver: dict[str, Any]) -> None:
    loaded = network(tmp_path, model(LINEAR), solver=solver)
    at, first, second = scalars(loaded), np.zeros(2), np.zeros(2)
    momentum, decay = solver.get("momentum", 0.0), solver.get("weight_decay", 0.0)
    for step in range(1, 6):
        x, y = batch(step, count=4 - step % 2)  # batches differ in size
        rate = 0.1 / step
        g = gradient(at, x, y) + decay * at
        if solver["name"] == "adam":  # Kingma and Ba, algorithm 1
            first = momentum * first + (1 - momentum) * g
            second = solver["momentum2"] * second + (1 - solver["momentum2"]) * g**2
            mean, variance = first / (1 - momentum**step), second / (1 - solver["momentum2"] ** step)
            at = at - rate * mean / (np.sqrt(variance) + solver["delta"])
        else:
            first = momentum * first + g
            at = at - rate * (g + momentum * first if solver["name"] == "nesterov" else first)
        loaded.train_step(x, y, rate)
        assert scalars(loaded) == pytest.approx(at, rel=1e-5)


def test_regularisation_is_reported_and_not_learnt_from(tmp_path: Path) -> None:
    loaded, (x, y) = network(tmp_path, model(REGULARISED)), batch(1)
    at = scalars(loaded)
    expected = ((at[0] * x + at[1] - y) ** 2).mean() + 0.05 * at[0] ** 2 / 2
    _, validated, _ = loaded.predict(x, y)
    assert validated == pytest.approx(expected, rel=1e-5)
    assert loaded.train_step(x, y, 0.1) == pytest.approx(expected, rel=1e-5)
    assert scalars(loaded) == pytest.approx(at - 0.1 * gradient(at, x, y), rel=1e-5)


def test_a_loss_of_the_job_leaves_regularisation_out(tmp_path: Path) -> None:
    loaded, (x, y) = network(tmp_path, model(REGULARISED), loss="l1"), batch(1)
    at = scalars(loaded)
    assert loaded.predict(x, y)[1] == pytest.approx(np.abs(at[0] * x + at[1] - y).mean(), rel=1e-5)


def test_a_file_may_change_gradients_and_have_several_losses(tmp_path: Path) -> None:
    loaded, (x, y) = network(tmp_path, model(LINEAR, LOSS + CLIPPED)), batch(1)
    at = scalars(loaded)
    loaded.train_step(x, y + 100, 0.1)  # the offset's gradient is about -200
    assert scalars(loaded)[1] == pytest.approx(at[1] + 0.1, rel=1e-5)
    loaded = network(tmp_path, model(LINEAR, TWO_LOSSES))
    at = scalars(loaded)
    assert loaded.train_step(x, y, 0.1) == pytest.approx(-(at[0] * x + at[1] - y).mean(), rel=1e-4)
    assert scalars(loaded) == pytest.approx(at - 0.1 * np.array([x.mean(), -2]), rel=1e-4)


@pytest.mark.parametrize("normalised", NORMALISED)
def test_moving_averages_are_kept_in_training_and_used_in_validation(tmp_path: Path, normalised: str) -> None:
    loaded = network(tmp_path, model(normalised))
    x, y = batch(1)
    loaded.train_step(x + 3, y, 0.0)
    weights = loaded.get_weights()
    assert weights["norm.running_mean"] == pytest.approx([0.5 * (x + 3).mean()], rel=1e-5)
    output, _, _ = loaded.predict(x[:1], None)
    scale = np.sqrt(weights["norm.running_var"] + 0.001)
    assert np.allclose(output, (x[:1] - weights["norm.running_mean"]) / scale, atol=1e-5)


@pytest.mark.parametrize("text", [model(LINEAR), model(DROPPED)], ids=["linear", "dropout"])
def test_a_seed_repeats_a_training_bit_for_bit(tmp_path: Path, text: str) -> None:
    def train(seed: int) -> tuple[list[float], dict[str, Array]]:
        loaded = network(tmp_path, text, seed=seed, solver=SOLVERS[1])
        return [loaded.train_step(*batch(step), 0.1) for step in range(5)], loaded.get_weights()

    (losses, weights), (again, same), (_, other) = train(3), train(3), train(4)
    assert losses == again
    assert all(np.array_equal(weights[name], same[name]) for name in weights)
    assert not np.array_equal(weights["only.weight"], other["only.weight"])


def test_a_copy_of_the_weights_is_kept_for_few_sizes_only(tmp_path: Path) -> None:
    loaded = network(tmp_path, model(LINEAR), solver=None)
    at = scalars(loaded)
    for size in [8, *range(1, 9), 8]:
        x = np.full((1, size, 8, 1), size, np.float32)
        assert loaded.predict(x, None)[0] == pytest.approx(at[0] * x + at[1], rel=1e-5)
    assert len(loaded._predictors) == 4  # type: ignore[attr-defined]


def test_other_sizes_are_predicted_with_the_weights_of_the_moment(tmp_path: Path) -> None:
    loaded = network(tmp_path, model(LINEAR))
    for step in range(3):
        at = scalars(loaded)
        for height, width in [(8, 8), (5, 20), (8, 8)]:
            x = np.random.default_rng(step).uniform(-1, 1, (3, height, width, 1)).astype(np.float32)
            output, loss, _ = loaded.predict(x, x)
            assert output == pytest.approx(at[0] * x + at[1], abs=1e-6)
            assert loss == pytest.approx(((output - x) ** 2).mean(), rel=1e-4)
            assert np.array_equal(loaded.predict(x, None)[0], output)
        loaded.train_step(*batch(step), 0.1)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: f"{solver['name']} {solver.get('momentum', 0)}")
def test_a_training_goes_on_from_its_checkpoint_bit_for_bit(tmp_path: Path, solver: dict[str, Any]) -> None:
    text, folder = model(LINEAR), tmp_path / "snapshot"
    folder.mkdir()
    loaded = network(tmp_path, text, solver=solver)
    for step in range(3):
        loaded.train_step(*batch(step), 0.1)
    loaded.save(str(folder))
    saved = scalars(loaded)
    expected = [loaded.train_step(*batch(step), 0.1) for step in range(3)]
    moved = folder.rename(tmp_path / "moved")

    other = network(tmp_path, text, solver=solver, seed=9)
    other.restore(str(moved))
    assert [other.train_step(*batch(step), 0.1) for step in range(3)] == expected
    predictor = network(tmp_path, text, solver=None, seed=9)
    predictor.restore(str(moved))
    assert np.array_equal(scalars(predictor), saved)


def test_what_cannot_be_restored_or_trained_says_so(tmp_path: Path) -> None:
    loaded = network(tmp_path, model(LINEAR), solver=SOLVERS[3])
    with pytest.raises(ModelError, match=r"no checkpoint network\.ckpt"):
        loaded.restore(str(tmp_path))
    network(tmp_path, model(LINEAR)).save(str(tmp_path))  # without Adam's state
    with pytest.raises(ModelError, match=r"net\.py with its solver needs .*(power|Adam).*does not contain it"):
        loaded.restore(str(tmp_path))
    with pytest.raises(SettingsError, match="prediction only"):
        network(tmp_path, model(LINEAR), solver=None).train_step(*batch(0), 0.1)
    with pytest.raises(SettingsError, match="device='tpu'"):
        network(tmp_path, model(LINEAR), device="tpu")
