"""What the core decides about solvers: which settings are valid, the defaults of the recipe `equal`, its initialisation."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import multiseg
from multiseg import backend as registry
from multiseg.cli.train import multipliers
from multiseg.cli.train import train as command
from multiseg.errors import SettingsError
from multiseg.network import NetworkSpec, factors
from multiseg.settings.initialisation import initial_weights
from multiseg.settings.solvers import NEUTRAL

FIELD = ("sgd", "nesterov", "adagrad", "rmsprop", "adadelta", "adam")


def test_all_backends_have_the_solvers_of_the_field() -> None:
    assert set(NEUTRAL) == set(FIELD)
    for name in registry.names():
        assert set(FIELD) <= set(registry.get(name).solvers)


@pytest.mark.parametrize("solver", FIELD)
def test_equal_is_the_same_for_all_backends(solver: str) -> None:
    found = [
        multiseg.Job(dataset="x", backend=name, recipe="equal", solver=solver, seed=1).resolve().to_json()
        for name in registry.names()
    ]
    for each in found:
        del each["backend"], each["model"]
    assert all(each == found[0] for each in found)
    assert found[0]["solver"]["weight_decay"] == 0
    assert (found[0]["batch_size"], found[0]["val_batch_size"], found[0]["loss"]) == (16, 16, "l2")


def test_the_commands_defaults_are_the_jobs() -> None:
    job = multiseg.Job("x")
    defaults = {param.name: param.get_default(click.Context(command)) for param in command.params}
    plain = [field.name for field in fields(job) if isinstance(getattr(job, field.name), (str, int, float))]
    stated = {name: defaults[name] for name in plain if name != "dataset"}
    assert stated == {name: getattr(job, name) for name in stated} and len(stated) > 10


def test_what_is_named_overrides_the_recipe() -> None:
    job = multiseg.Job(dataset="x", recipe="equal", learning_rate=0.5, batch_size=3, loss="l1", solver="adam",
                       solver_options={"delta": 0.1})  # fmt: skip
    settings = job.resolve()
    assert (settings.learning_rate, settings.batch_size, settings.val_batch_size, settings.loss) == (0.5, 3, 16, "l1")
    assert settings.solver == {"name": "adam", "momentum": 0.9, "momentum2": 0.999, "delta": 0.1, "weight_decay": 0.0}


def test_whole_numbers_too_large_for_a_float_are_refused() -> None:
    large = 10**400
    job = multiseg.Job(
        dataset="x", learning_rate=large, mean=[large], divide_std=[large], threshold=large, min_delta=large,
        loss="binary_cross_entropy", loss_options={"label_max": large}, solver_options={"momentum": large},
        multipliers={"*": {"lr": large}}, lr_policy={"policy": "step", "step": large},
        augment={"noise": large, "scale": [1, large]}, val_interval=large, epochs=large,
    )  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        job.resolve()
    for words in (
        "learning_rate=1", "mean=[1", "divide_std=[1", "threshold=1", "min_delta=1", "loss_options label_max=1", "momentum=1",
        "multipliers['*']['lr']=1", "step must be a number", "noise=1", "scale=[1", "val_interval=1", "epochs=1",
    ):  # fmt: skip
        assert words in str(caught.value)
    with pytest.raises(SettingsError, match=r"class_weights=\[1.*must be numbers from 0"):
        multiseg.Job(dataset="x", loss="cross_entropy", class_weights=[1, large]).resolve()


def test_equal_has_only_what_all_have() -> None:
    with pytest.raises(
        SettingsError, match=r"solver='adamw': choose one of sgd, nesterov, adagrad, rmsprop, adadelta, adam$"
    ):
        multiseg.Job(dataset="x", recipe="equal", solver="adamw").resolve()
    with pytest.raises(
        SettingsError, match="solver 'sgd' of torch has no option 'dampening'; it takes: momentum, weight_decay"
    ):
        multiseg.Job(dataset="x", recipe="equal", solver_options={"dampening": 0}).resolve()


def test_all_that_is_wrong_is_said_at_once() -> None:
    job = multiseg.Job(
        dataset="x", solver="rmsprop", accumulate=0,
        solver_options={"rms_decay": 1, "delta": 0, "momentum": -0.1, "weight_decay": float("nan"), "gamma": 1},
        multipliers={"a": {"rate": 1}, "b": {"lr": -1}, "c": {}, "d": {"lr": 1, "decay": "x"}},
    )  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        job.resolve()
    for words in (
        "accumulate=0: must be a whole number from 1", "rms_decay=1: must be from 0 to below 1", "delta=0: must be above 0",
        "momentum=-0.1: must be from 0 to below 1", "weight_decay=nan: must be a number from 0", "no option 'gamma'",
        "multipliers['a']={'rate': 1}: must be {'lr': a, 'decay': b}", "multipliers['b']['lr']=-1: must be a number from 0",
        "multipliers['c']", "multipliers['d']['decay']='x'",
    ):  # fmt: skip
        assert words in str(caught.value)
    with pytest.raises(SettingsError, match="multipliers=3: must map"):
        multiseg.Job(dataset="x", multipliers=3).resolve()  # type: ignore[arg-type]


def test_of_several_multipliers_the_last_counts() -> None:
    spec = NetworkSpec(
        model="m", input_shape=(1, 1, 1), label_shape=(1, 1, 1), solver={}, loss=None, batch_size=1, val_batch_size=1, seed=1,
        threads=1, device="cpu", lowering=True, frozen=("c",),
        multipliers={"*": {"lr": 3}, "*.bias": {"decay": 0}, "b.*": {"lr": 2}},
    )  # fmt: skip
    own = {"a.weight": (1.0, 1.0), "a.bias": (1.0, 1.0), "b.weight": (5.0, 0.5), "c.weight": (1.0, 1.0)}
    assert factors(spec, own) == {"a.weight": (3, 1), "a.bias": (3, 0), "b.weight": (2, 0.5)}
    assert factors(NetworkSpec.from_json(spec.to_json()), own) == factors(spec, own)


def test_the_command_line_takes_multipliers() -> None:
    assert multipliers(("*.bias=2,0", "a.weight=0.5")) == {"*.bias": {"lr": 2, "decay": 0}, "a.weight": {"lr": 0.5}}
    for wrong in ("a", "a=", "a=1,2,3", "a=x"):
        answer = CliRunner().invoke(command, ["--dataset", "x", "--run", "y", "--multiplier", wrong])
        assert answer.exit_code == 2 and "is not PARAMETER=LR" in answer.output


# --- the initialisation

SHAPES = {"a.weight": (8, 3, 5, 5), "a.bias": (8,), "norm.weight": (8,), "norm.bias": (8,), "b.weight": (8, 3, 16, 16)}


def test_the_initialisation_is_glorots() -> None:
    made = initial_weights(SHAPES, 1, "RGB", (3, 3))
    assert set(made) == {"a.weight", "a.bias", "norm.bias", "b.weight"}
    assert not made["a.bias"].any() and not made["norm.bias"].any()
    for name, area in (("a.weight", 25), ("b.weight", 256)):
        variance = 2 / ((8 + 3) * area)  # Glorot and Bengio's aim, of fans in and out together
        assert made[name].dtype == np.float32 and made[name].shape == SHAPES[name]
        assert np.var(made[name]) == pytest.approx(variance, rel=0.1)
        assert np.abs(made[name]).max() <= np.sqrt(3 * variance)
    assert not np.array_equal(made["a.weight"], initial_weights(SHAPES, 2, "RGB", (3, 3))["a.weight"])


def test_the_initialisation_goes_by_position() -> None:
    """Names differ between frameworks, and where normalisation is one layer or two."""
    other = {
        "0.weight": (8, 3, 5, 5),
        "0.bias": (8,),
        "1.running_mean": (8,),
        "2.weight": (8,),
        "3.weight": (8, 3, 16, 16),
    }
    ours, theirs = initial_weights(SHAPES, 1, "RGB", (3, 3)), initial_weights(other, 1, "RGB", (3, 3))
    assert np.array_equal(ours["a.weight"], theirs["0.weight"])
    assert np.array_equal(ours["b.weight"], theirs["3.weight"])


@pytest.mark.parametrize("channels", [(3, 3), (3, 1), (1, 3), (1, 1)])
def test_bgr_reverses_the_channels_of_the_images(channels: tuple[int, int]) -> None:
    rgb, bgr = (initial_weights(SHAPES, 1, order, channels) for order in ("RGB", "BGR"))  # type: ignore[arg-type]
    into, out = (slice(None, None, -1 if count == 3 else 1) for count in channels)
    assert np.array_equal(bgr["a.weight"], rgb["a.weight"][:, into])
    assert np.array_equal(bgr["b.weight"], rgb["b.weight"][:, out])  # a deconvolution's weights are (in, out, ...)


def test_a_whole_update_may_not_be_larger_than_the_dataset(dataset: Any, tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match="batch_size=60 x accumulate=2: is larger than the dataset, 108 training images"
    ):
        multiseg.Job(dataset=dataset, batch_size=60, accumulate=2).train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


# --- the documentation


def table_rows(solver: str) -> list[list[str]]:
    """Cells of the rows for a solver in the tables of docs/solvers.md."""
    text = (Path(__file__).parents[3] / "docs/solvers.md").read_text()
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith(f"| `{solver}` |")]
    return [[cell.strip() for cell in row[1:]] for row in rows]


def numbers_in(cell: str) -> list[float]:
    return sorted(float(number) for number in re.findall(r"(?<= )\d[\d.e-]*", f" {cell}"))


@pytest.mark.parametrize("solver", FIELD)
def test_the_documented_defaults_are_the_real_ones(solver: str) -> None:
    _, own, equal, *_ = table_rows(solver)  # and what a solver keeps
    for cell, name in zip(own, ("caffe", "torch", "tensorflow"), strict=True):
        options = registry.get(name).solvers[solver]
        assert numbers_in(cell) == sorted(value for key, value in options.items() if "weight_decay" not in key)
    assert numbers_in(equal[1]) == sorted(NEUTRAL[solver].options.values())
    assert numbers_in(equal[2]) == [NEUTRAL[solver].rate]
