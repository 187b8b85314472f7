"""Jobs that go on from runs: in another framework, with colours in another order, under other names, and interrupted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers.lending import weights_of
from helpers.linear_net import write_model
from multiseg.dataset import Dataset
from multiseg.errors import RunError, SettingsError
from multiseg.model_files import weights_file
from multiseg.run.state import neutral_of

U = 2.0**-24  # rounding to float32


def job_of(backend: str, dataset: Dataset, folder: Path, **settings: Any) -> multiseg.Job:
    """Two epochs of five steps each, on images in colour: Caffe is fed them as BGR."""
    folder.mkdir(exist_ok=True)
    given = {"recipe": "equal", "solver": "adam", "learning_rate": 1e-2, "epochs": 2, "batch_size": 2, "seed": 6}
    model = write_model(folder, backend, 3)
    return multiseg.Job(dataset=dataset, backend=backend, model=model, threads=1, **{**given, **settings})


def furthest(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


@pytest.fixture(scope="module")
def firsts(coloured: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """firsts(backend): folder of a run, made once."""
    folder = tmp_path_factory.mktemp("firsts")

    def run(backend: str) -> Path:
        path = folder / backend
        if not path.exists():
            job_of(backend, coloured, folder / f"model-{backend}").train(path, progress=False)
        return path

    return run


Continued = tuple[multiseg.Job, multiseg.Run, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def continued(firsts: Any, coloured: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Continued:
    """A job in PyTorch that goes on from Caffe's run, that job's run and its events."""
    folder = tmp_path_factory.mktemp("continued")
    job = job_of("torch", coloured, folder / "model", weights=firsts("caffe"), seed=7, epochs=1)
    events: list[dict[str, Any]] = []
    return job, job.train(folder / "run", progress=events.append), events


@pytest.mark.needs("caffe", "torch")
def test_a_run_goes_on_in_another_framework(firsts: Any, continued: Continued, tmp_path: Path) -> None:
    """As it does in its own: PyTorch's run of the same settings came to the same weights, and goes on to the same."""
    job, moved, events = continued
    own = replace(job, weights=firsts("torch")).train(tmp_path / "own", progress=False)
    without = replace(job, solver_state=False).train(tmp_path / "without", progress=False)
    told = moved.summary["weights"]
    assert told == events[0]["weights"]
    assert told["solver_state"] == {
        "solver": "adam", "steps": 10, "slots": {"mean": "as it is", "square": "as it is"}, "unused": [],
    }  # fmt: skip
    assert told["reversed"] == ["conv1.weight", "conv2.weight", "conv2.bias"] and told["snapshot"] == "epoch-0002"
    assert without.summary["weights"]["solver_state"] is None
    before = multiseg.Run.open(firsts("caffe")).history
    assert moved.history[0]["val_loss"] == pytest.approx(before[-1]["val_loss"], rel=1e-5)
    expected = weights_of(own)
    error, far = furthest(weights_of(moved), expected), furthest(weights_of(without), expected)
    # 15 steps of both, each off by the rounding of a weight about 1 in size, and of the step
    assert error < 30 * U and far > 100 * 30 * U


@pytest.mark.needs("caffe", "torch")
def test_an_interrupted_job_that_went_on_from_a_run_resumes_to_the_bit(
    firsts: Any, coloured: Dataset, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(firsts("torch"), source)
    job = job_of("caffe", coloured, tmp_path / "model", weights=source, seed=7)
    whole = job.train(tmp_path / "whole", progress=False)

    def interrupt(step: int) -> Any:
        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "step" and event["iteration"] == step:
                raise KeyboardInterrupt

        return listen

    with pytest.raises(KeyboardInterrupt):
        job.train(tmp_path / "cut", progress=interrupt(2))  # before the first snapshot: it begins anew, from the run
    shutil.move(source / "snapshots/epoch-0002", source / "snapshots/epoch-0001")
    with pytest.raises(RunError, match=r"was at epoch-0002 when .* began, and is at epoch-0001 now"):
        job.train(tmp_path / "cut", resume=True, progress=False)
    shutil.move(source / "snapshots/epoch-0001", source / "snapshots/epoch-0002")
    with pytest.raises(KeyboardInterrupt):
        job.train(tmp_path / "cut", resume=True, progress=interrupt(7))
    shutil.rmtree(source / "snapshots")  # what it went on from is not needed any more
    cut = job.train(tmp_path / "cut", resume=True, progress=False)
    assert cut.summary["weights"] == whole.summary["weights"]
    ours, theirs = weights_of(whole), weights_of(cut)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.needs("caffe", "torch")
def test_layers_of_other_names_are_found_by_structure(continued: Continued, tmp_path: Path) -> None:
    job, same, _ = continued
    other = tmp_path / "other.py"
    other.write_text(Path(str(job.model)).read_text().replace("conv1", "first").replace("conv2", "second"))
    renamed = replace(job, model=other).train(tmp_path / "renamed", progress=False)
    assert renamed.summary["weights"]["renamed"] == {
        "first.weight": "conv1.weight", "first.bias": "conv1.bias", "second.weight": "conv2.weight",
        "second.bias": "conv2.bias",
    }  # fmt: skip
    theirs = weights_of(renamed)
    for name, value in weights_of(same).items():
        assert np.array_equal(theirs[name.replace("conv1", "first").replace("conv2", "second")], value)


@pytest.mark.needs("caffe", "torch")
def test_a_neutral_file_holds_a_run_with_its_solver(firsts: Any, continued: Continued, tmp_path: Path) -> None:
    content = neutral_of(multiseg.Run.open(firsts("caffe")))
    assert content.channel_order == "BGR" and content.solver is not None
    assert content.solver["solver"] == "adam" and content.solver["steps"] == 10
    file = tmp_path / "run.safetensors"
    weights_file.write(file, content)
    read = weights_file.read(file)
    assert read.solver == content.solver and read.state.keys() == content.state.keys()
    assert all(np.array_equal(read.state[name], value) for name, value in content.state.items())
    job, of_run, _ = continued
    of_file = replace(job, weights=file).train(tmp_path / "of-file", progress=False)
    assert of_file.summary["weights"] == {**of_run.summary["weights"], "snapshot": None}
    assert furthest(weights_of(of_run), weights_of(of_file)) == 0


@pytest.mark.needs("caffe", "torch")
def test_what_cannot_go_over_is_refused_before_anything_is_trained(
    firsts: Any, continued: Continued, tmp_path: Path
) -> None:
    job = continued[0]
    with pytest.raises(
        SettingsError, match="it is the state of 'adam', but the solver of this job is 'sgd'; choose solver='adam'"
    ):
        replace(job, solver="sgd").train(tmp_path / "run", progress=False)
    with pytest.raises(
        SettingsError, match="its mean was computed from gradients of the loss l2, but the loss of this job is l1"
    ):
        replace(job, loss="l1").train(tmp_path / "run", progress=False)
    plain = tmp_path / "plain.safetensors"
    weights_file.write(plain, neutral_of(multiseg.Run.open(firsts("caffe")), state=False))
    with pytest.raises(SettingsError, match=r"plain\.safetensors holds weights without a solver's state"):
        replace(job, weights=plain, solver_state=True).train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
