"""Graphs that are used again, for another solver or without labels, compute what new graphs compute, bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tensorflow_files import LOSS, model, network, specification

pytestmark = pytest.mark.needs("tensorflow")

NET = model("""
net = slim.conv2d(self.x, 3, [2, 2], stride=2, scope='first')
net = slim.batch_norm(net, is_training=self.is_training, decay=0.5, scope='norm', updates_collections=tf.GraphKeys.UPDATE_OPS)
net = slim.dropout(net, is_training=self.is_training)
return slim.conv2d_transpose(net, 1, [2, 2], stride=2, activation_fn=None, scope='last')
""")
ADAM: dict[str, Any] = {"name": "adam", "momentum": 0.9, "momentum2": 0.999, "delta": 1e-8}
NESTEROV: dict[str, Any] = {"name": "nesterov", "momentum": 0.9, "weight_decay": 0.1}
DRAW = np.random.default_rng(5)
X, Y, MORE = (DRAW.uniform(-1, 1, (4, 8, 8, 1)).astype(np.float32) for _ in range(3))


def followed(folder: Path, solver: dict[str, Any]) -> Any:
    """The network with a solver that follows the one of plain gradient descent, which has trained and predicted."""
    first = network(folder, NET)
    first.predict(X, Y, True)
    first.predict(X, None)
    first.train_step(X, Y, 0.1, 7)
    first.predict(X, Y)
    return first.successor(specification(folder, NET, solver=solver))


def computed(loaded: Any) -> list[Any]:
    """Descriptions and arrays of a network before, between and after two steps."""
    values = [loaded.describe(), loaded.get_weights(), loaded.predict(X, Y, True), loaded.predict(MORE, None)]
    for step, batch in enumerate((X, MORE)):
        values.append(loaded.train_step(batch, Y, 0.05, step))
        values += [loaded.get_weights(), loaded.get_weights(state=True), loaded.predict(X, Y, True)]
    return values


@pytest.mark.parametrize("solver", [ADAM, NESTEROV], ids=lambda solver: str(solver["name"]))
def test_it_computes_what_a_loaded_network_computes(tmp_path: Path, solver: dict[str, Any]) -> None:
    follower = followed(tmp_path, solver)
    assert follower is not None
    np.testing.assert_equal(computed(follower), computed(network(tmp_path, NET, solver=solver)))


def test_its_checkpoints_are_those_of_a_loaded_network(tmp_path: Path) -> None:
    follower = followed(tmp_path, ADAM)
    follower.train_step(X, Y, 0.05, 3)
    follower.save(str(tmp_path))
    loaded = network(tmp_path, NET, solver=ADAM)
    loaded.restore(str(tmp_path))
    for state in (False, True):
        np.testing.assert_equal(loaded.get_weights(state), follower.get_weights(state))
    assert loaded.train_step(X, Y, 0.05, 4) == follower.train_step(X, Y, 0.05, 4)
    follower.restore(str(tmp_path))


def test_other_changes_need_a_loaded_network(tmp_path: Path) -> None:
    first = network(tmp_path, NET)
    spec = specification(tmp_path, NET, solver=NESTEROV)
    for other in (replace(spec, seed=2), replace(spec, frozen=("first",)), replace(spec, solver=None)):
        assert first.successor(other) is None
    assert first.successor(specification(tmp_path, NET.replace("0.5", "0.6"), solver=NESTEROV)) is None
    second = first.successor(specification(tmp_path, NET, solver=NESTEROV))
    assert second is not None
    assert second.successor(specification(tmp_path, NET, solver=ADAM)) is None  # it has momenta


def test_a_changed_helper_needs_a_loaded_network(tmp_path: Path) -> None:
    helper = tmp_path / "parts_of_it.py"
    helper.write_text("FILTERS = 2\n")
    text = NET.replace("self.x, 3", "self.x, FILTERS").replace("\nclass", "\nfrom parts_of_it import FILTERS\nclass")
    first = network(tmp_path, text)
    helper.write_text("FILTERS = 5\n")
    assert first.successor(specification(tmp_path, text, solver=ADAM)) is None
    assert network(tmp_path, text).get_weights()["first.weight"].shape == (5, 1, 2, 2)


FIXED = """
net = slim.conv2d(self.x, 3, [3, 3], scope='first')
net = slim.batch_norm(net, is_training=False, scope='norm')
net = tf.nn.dropout(net, keep_prob=0.5, name='drop')
return slim.conv2d(net, 1, [1, 1], activation_fn=None, scope='last')
"""


CONSTRUCTOR = """
    def __init__(self, *arguments):
        super().__init__(*arguments)
"""


@pytest.mark.parametrize("inference", [FIXED, FIXED.replace("tf.nn.dropout(net, keep_prob=0.5, name='drop')", "net")])
def test_a_network_that_does_not_read_its_mode_is_the_same_in_one_graph(tmp_path: Path, inference: str) -> None:
    from multiseg_tensorflow.reader import describe

    reading = "assert self.is_training in (False, True)" + inference
    descriptions, predicted = [], []
    for number, text in enumerate([model(inference), model(reading), model(inference, LOSS + CONSTRUCTOR)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        loaded = network(folder, text)
        descriptions.append(describe(str(folder / "net.py"), [1, 8, 8]))
        predicted.append([loaded.predict(X, Y, True), loaded.predict(X, None), loaded.predict(MORE, None, True)])
    assert descriptions[0] == descriptions[1] == descriptions[2]
    layers = {layer["type"]: layer for layer in descriptions[0]["layers"]}
    assert layers["BatchNormalization"]["parameters"]["training_statistics"] == "stored"
    assert ("Dropout" in layers) == ("dropout" in inference)
    if "dropout" not in inference:
        np.testing.assert_equal(predicted[0], predicted[1])
        np.testing.assert_equal(predicted[0], predicted[2])


@pytest.mark.parametrize(
    ("factor", "ratio"), [("3. if self.is_inference else 2.", 1.5), ("1. if self.y is None else 2.", 0.5)]
)
def test_a_network_that_reads_its_mode_has_a_graph_for_each(tmp_path: Path, factor: str, ratio: float) -> None:
    loaded = network(tmp_path, model(f"return self.x * ({factor}) * tf.get_variable('w', [1])"))
    output, _, _ = loaded.predict(X, Y)
    np.testing.assert_allclose(loaded.predict(X, None)[0], output * ratio, rtol=1e-6)
