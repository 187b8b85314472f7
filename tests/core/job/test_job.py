"""Resolution of a job: all errors at once, each naming the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.errors import RunError, SettingsError


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
