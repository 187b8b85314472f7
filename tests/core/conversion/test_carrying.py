"""Rules by which a solver's state goes over to another: what comes as it is, what as displacement, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import multiseg
from multiseg.cli import main
from multiseg.errors import ModelError, SettingsError
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.run.solver_state import SolverState, carried

TRAINED = {"conv.weight": 1.0, "conv.bias": 2.0}


def state(slots: Mapping[str, float], **said: Any) -> SolverState:
    """Of one number for each parameter and slot."""
    arrays = {f"{slot}/{name}": np.full(1, value, np.float32) for slot, value in slots.items() for name in TRAINED}
    given = {"solver": "sgd", "recipe": "tutorial", "backend": "torch", "loss": "l2", "rate": 0.5, "steps": None}
    return SolverState(**{**given, "trained": TRAINED, "slots": arrays, **said})


def move(source: SolverState, target: SolverState, names: Mapping[str, str] | None = None) -> Any:
    return carried(source, target, names or {name: name for name in target.trained}, "runs/a")


@pytest.mark.parametrize(("source", "target", "weight", "bias", "how"), [
    # one rule on both sides: the numbers themselves
    ({"momentum": 3}, {}, 3, 3, "as it is"),
    ({"momentum": 3, "recipe": "equal", "backend": "caffe"}, {"recipe": "equal"}, 3, 3, "as it is"),
    ({"displacement": 3, "backend": "caffe", "loss": "l1"}, {"displacement": 0, "backend": "caffe"}, 3, 3, "as it is"),
    # else as far as it moved last: 0.5 x 3 for the weight, with its factor of 2 twice that for the bias
    ({"momentum": 3}, {"loss": "l1", "rate": 0.25}, 6, 6, "as displacement"),
    ({"momentum": 3, "recipe": "equal"}, {"rate": 0.25}, 6, 6, "as displacement"),
    ({"momentum": 3}, {"backend": "tensorflow", "rate": 2.0}, 0.75, 0.75, "as displacement"),
    ({"momentum": 3}, {"displacement": 0, "backend": "caffe"}, 1.5, 3, "as displacement"),
    ({"displacement": 3, "backend": "caffe"}, {"rate": 0.25}, 12, 6, "as displacement"),
])  # fmt: skip
def test_momentum_moves_on(
    source: dict[str, Any], target: dict[str, Any], weight: float, bias: float, how: str
) -> None:
    def split(given: dict[str, Any], default: float) -> SolverState:
        slots = {key: value for key, value in given.items() if key in ("momentum", "displacement")}
        return state(slots or {"momentum": default}, **{key: given[key] for key in given if key not in slots})

    found = move(split(source, 3), split(target, 0))
    slot = "displacement" if "displacement" in target else "momentum"
    assert found.how == {slot: how}
    assert [found.state[f"{slot}/{name}"][0] for name in TRAINED] == [weight, bias]


def test_moments_go_over_with_their_steps_and_under_other_names() -> None:
    source = state({"mean": 1, "square": 2}, solver="adam", backend="caffe", steps=7)
    target = state({"mean": 0, "square": 0}, solver="adam", steps=0, trained={"a.weight": 1.0})
    slots = {f"{slot}/a.weight": np.zeros(1, np.float32) for slot in ("mean", "square")}
    target = SolverState(**{**vars(target), "slots": slots})
    found = move(source, target, {"a.weight": "conv.weight"})
    assert {name: value.item() for name, value in found.state.items()} == {
        "mean/a.weight": 1, "square/a.weight": 2, "steps": 7,
    }  # fmt: skip


def test_a_momentum_that_the_source_has_not_starts_from_zero() -> None:
    source = state({"square": 2}, solver="rmsprop", backend="caffe")
    target = state({"square": 1, "momentum": 0}, solver="rmsprop")
    found = move(source, target)
    assert found.how == {"square": "as it is", "momentum": "from zero"}
    assert found.state["momentum/conv.bias"] == 0 and found.state["square/conv.bias"] == 2
    assert move(state({}), state({"momentum": 0})).how == {"momentum": "from zero"}


@pytest.mark.parametrize(("source", "target", "words"), [
    (state({"mean": 1}, solver="adam"), state({"momentum": 0}),
     r"it is the state of 'adam', but the solver of this job is 'sgd'; choose"),
    (state({"mean": 1}, solver="adam", loss="l1"), state({"mean": 0}, solver="adam"),
     "its mean was computed from gradients of the loss l1, but the loss of this job is l2; train both with the same named loss"),
    (state({"momentum": 1}), state({}, backend="tensorflow"),
     "this job's 'sgd' in tensorflow has no momentum; add it with solver_options"),
    (state({"momentum": 1}, trained={"conv.weight": 1.0}), state({"momentum": 0}),
     "it has no state for 'conv.bias', which this job trains; freeze that layer"),
    (state({"momentum": 1}, rate=None), state({"momentum": 0}, loss="l1"), "its last learning rate is unknown"),
    (state({"square": 1}, solver="adam", steps=3), state({"mean": 0, "square": 0}, solver="adam", steps=0),
     "it has no mean, which this job's 'adam' in torch requires"),
    (state({"mean": 1}, solver="adam"), state({"mean": 0}, solver="adam", steps=0), "it has no steps"),
    (state({"linear": 1}), state({}), "has no linear;"),
])  # fmt: skip
def test_what_cannot_go_over_is_refused_with_the_mend(source: SolverState, target: SolverState, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        move(source, target)
    assert str(caught.value).startswith("weights='runs/a': its solver state cannot be transferred: ")
    assert str(caught.value).endswith("; solver_state=False starts from the weights alone")


def test_a_layer_without_weights_in_the_source_is_not_to_be_frozen() -> None:
    """It has random values, which cannot be frozen: only the start from the weights alone is advised."""
    source = state({"momentum": 1}, trained={"conv.weight": 1.0})
    with pytest.raises(
        SettingsError, match=r"'conv.bias', which this job trains; solver_state=False starts from the weights alone$"
    ):
        move(source, state({"momentum": 0}), {"conv.weight": "conv.weight"})


def test_a_file_says_all_of_it_or_is_refused() -> None:
    whole = state({"mean": 1}, solver="adam", steps=7)
    said = NeutralWeights({}, None, whole.slots, whole.to_json())
    assert SolverState.of(said, "a.safetensors") == whole
    assert SolverState.of(NeutralWeights({}), "a.safetensors") is None
    with pytest.raises(ModelError, match=r"a\.safetensors: its solver description lacks 'solver'"):
        SolverState.of(NeutralWeights({}, None, {}, {"name": "adam"}), "a.safetensors")
    with pytest.raises(ModelError, match=r"its solver description has an invalid trained=\['conv.weight'\]"):
        SolverState.of(NeutralWeights({}, None, {}, {**whole.to_json(), "trained": ["conv.weight"]}), "a.safetensors")
    with pytest.raises(ModelError, match=r"its solver description has an invalid rate=1000"):
        SolverState.of(NeutralWeights({}, None, {}, {**whole.to_json(), "rate": 10**400}), "a.safetensors")
    with pytest.raises(ModelError, match=r"a\.safetensors: its solver state lacks 'mean/conv.bias'"):
        slots = {"mean/conv.weight": np.zeros(1, np.float32)}
        SolverState.of(NeutralWeights({}, None, slots, whole.to_json()), "a.safetensors")


def test_the_command_line_says_it_in_its_own_words(dataset: multiseg.Dataset, fourth: str, tmp_path: Path) -> None:
    started = ["train", "--dataset", str(dataset.path), "--backend", fourth, "--run", str(tmp_path / "run")]
    for more, said in (
        (["--solver-state"], "--solver-state: requires weights to start from; specify them with --weights"),
        (["--weights", "no/run"], "--weights no/run: no such file or run folder"),
    ):
        found = CliRunner().invoke(main, [*started, *more])
        assert found.exit_code == 2 and said in found.output
