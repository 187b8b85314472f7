"""Folders that are no runs, or untrusted runs: nothing of the user's is removed, nothing outside the run is used."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.errors import ModelError, MultisegError, RunError
from multiseg.jobs import read_jobs
from multiseg.run.reading import read_history, read_job
from multiseg.run.snapshots import Position, Snapshot


@pytest.fixture
def job(fourth: str, dataset: Any) -> multiseg.Job:
    return multiseg.Job(dataset=dataset.path, backend=fourth, epochs=1, learning_rate=1e-9)


def fail(event: dict[str, Any]) -> None:
    raise RuntimeError(f"at the {event['event']}")


@pytest.mark.parametrize("name", ["model", "snapshots"])
@pytest.mark.parametrize("table", [False, True])
def test_a_users_folder_is_no_run_that_has_not_begun(name: str, table: bool, job: multiseg.Job, tmp_path: Path) -> None:
    folder = tmp_path / "runs/mine"
    (folder / name).mkdir(parents=True)
    (folder / name / "precious").write_text("data")
    if table:
        outcome = multiseg.train_jobs({"mine": job}, tmp_path / "runs")[0]
        assert outcome.status == "failed" and "is not a run folder" in outcome.error
    else:
        with pytest.raises(RunError, match="is not a run folder"):
            job.train(folder, resume=True, progress=False)
    assert [path.name for path in folder.rglob("*")] == [name, "precious"]


def test_a_training_that_fails_at_once_removes_only_what_it_made(job: multiseg.Job, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="at the start"):
        job.train(tmp_path / "run", progress=fail)
    assert not (tmp_path / "run").exists(), list((tmp_path / "run").rglob("*"))
    (tmp_path / "killed/snapshots").mkdir(parents=True)  # as a training leaves it that is killed at its beginning
    (tmp_path / "killed/.lock").touch()
    with pytest.raises(RuntimeError, match="at the start"):
        job.train(tmp_path / "killed", resume=True, progress=fail)
    assert not (tmp_path / "killed").exists()


@pytest.fixture(scope="module")
def job_json(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A job.json, as far as it is checked."""
    return {
        "format": 1,
        "settings": {"backend": "torch", "model": "net.py", "threads": 0, "epochs": 1, "batch_size": 4, "val_batch_size": 4,
                     "seed": 1, "device": "cpu", "lowering": True, "recipe": "equal", "learning_rate": 0.1, "loss": "l2",
                     "solver": {"name": "sgd"}, "multipliers": {}, "accumulate": 1, "freeze": [], "subtract_mean": "none"},
        "environment": {}, "dataset": {"path": "ds", "content_hash": "0"}, "network": {"parameters": {}, "own_loss": False},
        "input_shape": [1, 8, 8], "label_shape": [1, 8, 8],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["../../x.py", "/tmp/x.py", "..", "a/../../x.py", "x\0.py", 3])
@pytest.mark.parametrize("key", ["model", "exported"])
def test_the_network_file_of_a_run_is_in_the_run(
    key: str, name: object, job_json: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**job_json["settings"], key: name}
    (tmp_path / "job.json").write_text(json.dumps({**job_json, "settings": settings}))
    with pytest.raises(
        RunError, match=rf"job\.json: settings\.{key} is .* not (the name of a file in model/ of the run|a text)"
    ):
        multiseg.Run.open(tmp_path)


VALUES = (None, True, -1, 1.5, 1e400, "text", "", [], [1, 2], {}, {"a": {}}, [[[]]])


def mutated(value: Any, draw: random.Random) -> Iterator[Any]:
    """Yield copies of a JSON value in which one value has another type, or a key is missing."""
    if isinstance(value, dict):
        for key in value:
            yield {other: value[other] for other in value if other != key}
            for changed in mutated(value[key], draw):
                yield {**value, key: changed}
    elif isinstance(value, list):
        for index in range(len(value)):
            for changed in mutated(value[index], draw):
                yield [*value[:index], changed, *value[index + 1 :]]
    yield from draw.sample(VALUES, 6)


def test_mutations_of_the_files_of_a_run_are_typed_errors(job_json: dict[str, Any], tmp_path: Path) -> None:
    draw, refused, read = random.Random(1), 0, 0
    (tmp_path / "history.csv").write_text("epoch,iteration,val_loss\n0,0,1\n1,5,0.5\n")
    files = {
        "job.json": job_json,
        "position.json": vars(Position(5, 1.0, 2)),
        "summary.json": {"status": "finished", "epochs": 1},
    }
    for name, content in files.items():
        (tmp_path / "job.json").write_text(json.dumps(job_json))
        for changed in [*mutated(content, draw)]:
            (tmp_path / name).write_text(json.dumps(changed))
            try:
                read_job(tmp_path)
                run = multiseg.Run.open(tmp_path)
                _ = run.title, run.model, run.input_shape, run.image_shape, run.classifies, repr(run), run.mixed_sizes
                _ = run.summary if name == "summary.json" else None
                _ = Snapshot(1, tmp_path).position if name == "position.json" else None
                read += 1
            except (MultisegError, ModelError):
                refused += 1
    assert refused > 100 and read > 20


@pytest.mark.parametrize("cell", ["inf", "nan", "-inf", "1e999", "x", "1,2,3,4", "\0", '"', "\r", "9" * 400])
def test_cells_of_a_history_are_numbers_or_a_typed_error(cell: str, tmp_path: Path) -> None:
    for line in (f"{cell},5,0.5", f"1,{cell},0.5", f"1,5,{cell}"):
        (tmp_path / "history.csv").write_text(f"epoch,iteration,val_loss\n{line}\n")
        try:
            assert len(read_history(tmp_path / "history.csv")) <= 2
        except RunError as error:
            assert str(tmp_path / "history.csv") in str(error)


@pytest.mark.parametrize("name", ["..", ".", "...", "../../x", "/x"])
def test_the_name_of_a_job_is_a_folder_among_the_runs(name: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(f'[[job]]\nname = "{name}"\ndataset = "ds"\nbackend = "torch"\n')
    runs = tmp_path / "runs"
    for job in read_jobs(tmp_path / "jobs.toml").jobs:
        assert (runs / job).resolve().parent == runs.resolve()


@pytest.mark.parametrize(
    "name", ["summary.json", "events.jsonl", "history.csv", ".lock", "worker.log", "model", "snapshots", "pictures",
             "tensorboard", ".progress.json", ".summary.json.part"],
)  # fmt: skip
def test_links_in_a_run_are_refused_before_anything_is_written(name: str, job: multiseg.Job, tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    if name in ("model", "snapshots", "pictures", "tensorboard"):
        outside.mkdir()
        (outside / ".precious").write_text("data")
    else:
        outside.write_text("data")
    job.train(run, progress=False)
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    before = {file: file.read_bytes() for file in [*tmp_path.rglob("*")] if file.is_file()}
    with pytest.raises(RunError, match=rf"{re.escape(name)}: (is a symbolic link|cannot be read.*is a symbolic link)"):
        job.train(run, resume=True, progress=False)
    assert {file: file.read_bytes() for file in [*tmp_path.rglob("*")] if file.is_file()} == before
    with pytest.raises(RunError, match="is a symbolic link") if name == "history.csv" else nullcontext():
        multiseg.Run.open(run).export_history(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").exists() == (name != "history.csv")


def test_a_link_to_nothing_in_a_folder_without_job_is_not_followed(job: multiseg.Job, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match=r"\.lock: is a symbolic link"):
        job.train(run, resume=True, progress=False)
    assert not (tmp_path / "outside").exists() and [path.name for path in run.iterdir()] == [".lock"]


def test_snapshots_may_be_on_another_disk_that_has_nothing_else(job: multiseg.Job, tmp_path: Path) -> None:
    run, disk = job.train(tmp_path / "run", progress=False).path, tmp_path / "disk"
    (run / "snapshots").rename(disk)
    (run / "snapshots").symlink_to(disk)
    (disk / ".part-123").mkdir()
    job.train(run, resume=True, progress=False)
    assert [path.name for path in disk.iterdir() if path.name[0] != "."] == ["epoch-0001"]
    (disk / ".precious").mkdir()
    with pytest.raises(RunError, match="snapshots: is a symbolic link"):
        job.train(run, resume=True, progress=False)
    assert (disk / ".precious").exists()
