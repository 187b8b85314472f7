"""Resolution of a job: all errors at once, each naming the setting."""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.errors import MultisegError, RunError, SettingsError


def test_all_that_is_wrong_with_a_job_is_said_at_once() -> None:
    job = multiseg.Job(
        dataset="x", backend="torch", model="no.lua", epochs=0, subtract_mean="row", recipe="r", learning_rate=-1, batch_size=0,
        solver="foo", lr_policy="stepp", loss="l3", seed=-1, keep="some", threads=-1,
        device="gpu",
    )  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        job.resolve()
    for words in (
        "model='no.lua': no such file", "epochs=0", "subtract_mean='row': choose one of pixel, image, none", "recipe='r'",
        "learning_rate=-1", "batch_size=0", "solver='foo': choose one of sgd", "'stepp'", "loss='l3'", "seed=-1", "keep='some'",
        "threads=-1", "device='gpu': choose one of auto, cpu, cuda",
    ):  # fmt: skip
        assert words in str(caught.value)


def test_a_name_of_no_network_lists_those_that_there_are() -> None:
    with pytest.raises(
        SettingsError, match="model='resnet': no such file, and no network is called so; known are: fcn, "
    ):
        multiseg.Job(dataset="x", backend="torch", model="resnet").resolve()


VALUES: tuple[Any, ...] = (
    5, -1, 1.5, 10**400, math.nan, True, "x", "x\0", "", b"x", object(), [1], [[1]], ["x"], (1, 2), {}, {1: 2, "a": 3},
    {"policy": [1]}, {"policy": "step", "step": "50"}, {"policy": "multistep", "stepvalues": "12"},
)  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(multiseg.Job)])
def test_a_value_of_any_kind_is_taken_or_refused_by_name(name: str, dataset: Any) -> None:
    for value, (model, opened) in itertools.product(VALUES, ((None, dataset), ("unet", None))):
        settings: dict[str, Any] = {"dataset": "x", "model": model, "seed": 1, name: value}
        with contextlib.suppress(MultisegError):
            multiseg.Job(**settings).resolve(opened)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"freeze": 5}, "freeze=5: must be a list of names of layers"),
        ({"outputs": {"a": 1}}, "outputs={'a': 1}: must be a list of names of layers"),
        ({"augment": 5}, "augment=5: must map names of options to values"),
        ({"solver_options": [1]}, "solver_options=[1]: must map names of options to values"),
        ({"lr_policy": 5}, "lr_policy=5: must be a name, or a mapping"),
        ({"lr_policy": {"policy": [1]}}, "unknown lr_policy [1]; known are: fixed, step"),
        ({"model": 5}, "model=5: must be a file or the name of a network"),
        ({"weights": True}, "weights=True: must be a run folder or a file of weights"),
        ({"classes": [1]}, "classes=[1]: must be a whole number from 1"),
        ({"solver": ["sgd"]}, "solver=['sgd']: must be a name, as text"),
        ({"backend": ["torch"]}, "backend=['torch']: must be a name, as text"),
        ({"lowering": "x"}, "lowering='x': must be true or false"),
        ({"freeze": 5, "epochs": 0}, "epochs=0: must be a whole number from 1"),
    ],
)
def test_values_of_a_wrong_kind_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        multiseg.Job(dataset="x", **settings).resolve()
    assert words in str(caught.value)


@pytest.mark.parametrize("dataset", [5, [1], {}, "x\0"])
def test_a_dataset_that_is_no_folder_is_named_before_it_is_opened(dataset: Any, tmp_path: Path) -> None:
    job = multiseg.Job(dataset=dataset)
    for attempt in (lambda: job.train(tmp_path / "run"), lambda: multiseg.train_jobs({"a": job}, tmp_path / "runs")):
        with pytest.raises(SettingsError, match=r"dataset=.*: must be a folder, a URL or a Dataset"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_a_solver_option_that_does_not_fit_is_named() -> None:
    with pytest.raises(SettingsError, match="solver 'sgd' of tensorflow has no option 'dampening'; it takes: momentum"):
        multiseg.Job(dataset="x", backend="tensorflow", solver_options={"dampening": 0.9}).resolve()


def test_a_momentum_that_cannot_be_is_said() -> None:
    with pytest.raises(SettingsError, match=r"momentum=1: must be from 0 to below 1"):
        multiseg.Job(dataset="x", solver_options={"momentum": 1}).resolve()
    with pytest.raises(SettingsError, match=r"momentum=0: must be above 0 and below 1"):
        multiseg.Job(dataset="x", solver="nesterov", solver_options={"momentum": 0}).resolve()


def test_solver_semantics_are_the_tutorials() -> None:
    def solver(name: str, **settings: Any) -> dict[str, Any]:
        return multiseg.Job(dataset="x", backend=name, **settings).resolve().solver

    assert solver("caffe") == {"name": "sgd", "momentum": 0.9, "weight_decay": pytest.approx(1e-9)}
    assert solver("caffe", learning_rate=0.1)["weight_decay"] == pytest.approx(1e-3)
    assert solver("torch") == {"name": "sgd", "momentum": 0.9, "dampening": 0.9, "weight_decay": 1e-4}
    assert solver("tensorflow") == {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        multiseg.Run.open(tmp_path)


def test_training_into_a_folder_that_is_in_use_leaves_it_alone(dataset: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(RunError, match="exists already"):
        multiseg.Job(dataset=dataset).train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_backend_refuses_to_compile_and_precisions_that_it_lacks() -> None:
    with pytest.raises(SettingsError) as caught:
        multiseg.Job(dataset="x", backend="caffe", compile=True, precision="bf16").resolve()
    for words in (
        "compile=True: backend caffe does not compile its training step; leave it out, or use a backend that does: torch",
        "precision='bf16': backend caffe trains in float32; leave it out, or use a backend that supports it: torch",
    ):
        assert words in str(caught.value)
    with pytest.raises(SettingsError, match="precision='fp8': choose one of float32, bf16"):
        multiseg.Job(dataset="x", precision="fp8").resolve()
    kept = multiseg.Job(dataset="x", compile=True, precision="bf16").resolve().to_json()
    assert (kept["compile"], kept["precision"]) == (True, "bf16")


def test_an_error_of_the_network_file_is_stated_once(tmp_path: Path, dataset: multiseg.Dataset) -> None:
    """The file is read for its mean and for its crops."""
    (tmp_path / "net.prototxt").write_text('layer { name: "a" type: "ReLU" bottom: "data" topp: "a" }')
    job = multiseg.Job(dataset, "caffe", model=tmp_path / "net.prototxt")
    with pytest.raises(SettingsError) as caught:
        job.resolve()
    assert str(caught.value).count("LayerParameter has no field 'topp'") == 1
