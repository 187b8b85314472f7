"""A network that follows one with another solver computes what a network that is loaded anew computes, bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tensorflow_files import model, network, specification

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
