"""Damage to a snapshot, to the history up to it or to the settings is found before anything is computed with it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.cli import main
from multiseg.errors import MultisegWarning, RunError, SettingsError, TrainingStopped
from multiseg.run import sums
from multiseg.run.snapshots import Snapshot, snapshots
from multiseg.training.signals import Stop


@pytest.fixture
def job(fourth: str, dataset: Any) -> multiseg.Job:
    return multiseg.Job(
        dataset=dataset.path, backend=fourth, epochs=3, batch_size=50, learning_rate=1e-7, seed=1, threads=1, keep="all"
    )  # fmt: skip


@pytest.fixture
def stopped(job: multiseg.Job, tmp_path: Path, once: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with snapshots of two of its three epochs."""
    if "run" not in once:
        once["run"] = _trained(job, tmp_path_factory.mktemp("stopped") / "run")
    return Path(shutil.copytree(once["run"], tmp_path / "run"))


@pytest.fixture(scope="module")
def once() -> dict[str, Path]:
    """Where the run of ``stopped`` is kept, which is trained once."""
    return {}


def _trained(job: multiseg.Job, folder: Path) -> Path:
    stop = Stop()

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "snapshot" and event["epoch"] == 2:
            stop.ask()

    with pytest.raises(TrainingStopped):
        job.train(folder, progress=listen, stop=stop)
    return folder


def flip(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def test_the_sums_are_those_of_the_files(stopped: Path) -> None:
    for snapshot in snapshots(stopped):
        content = json.loads((snapshot.path / "sums.json").read_text())
        files = {path.name: path for path in snapshot.path.iterdir() if path.name != "sums.json"}
        assert {*files} == {"network.npz", "position.json"}
        assert content["files"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        snapshot.verify()


def test_every_changed_byte_of_a_snapshot_is_found(stopped: Path) -> None:
    folder = snapshots(stopped)[-1].path
    changes = 0
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for at in range(0, len(whole), 1 + len(whole) // 1500):
            changed = bytearray(whole)
            changed[at] ^= 1 + changes % 255
            path.write_bytes(changed)
            with pytest.raises(RunError, match=str(path)):
                sums.verify(folder, stopped)
            changes += 1
        path.write_bytes(whole)
    sums.verify(folder, stopped)
    assert changes > 1500


def _drop_row(run: Path) -> None:
    lines = (run / "history.csv").read_text().splitlines(keepends=True)
    (run / "history.csv").write_text("".join(lines[:1] + lines[2:]))


def _change_setting(run: Path) -> None:
    job = json.loads((run / "job.json").read_text())
    job["settings"]["learning_rate"] *= 2
    (run / "job.json").write_text(json.dumps(job))


def _other_epoch(run: Path) -> None:
    for name in ("network.npz", "position.json"):
        shutil.copy(run / "snapshots/epoch-0001" / name, run / "snapshots/epoch-0002" / name)


def _change_position(key: str, value: Any) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        path = run / "snapshots/epoch-0002/position.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return change


def _name_of_network(name: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        job = json.loads((run / "job.json").read_text())
        job["model_files"][name] = "0" * 64
        (run / "job.json").write_text(json.dumps(job))

    return change


NETWORK = "snapshots/epoch-0002/network.npz"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped bit": (lambda run: flip(run / NETWORK), NETWORK),
    "an empty file": (lambda run: (run / NETWORK).write_bytes(b""), NETWORK),
    "a truncated file": (lambda run: os.truncate(run / NETWORK, 100), NETWORK),
    "a missing file": (lambda run: (run / NETWORK).unlink(), NETWORK),
    "a further file": (lambda run: (run / "snapshots/epoch-0002/new").write_text("x"), "snapshots/epoch-0002/new"),
    "a snapshot of another epoch": (_other_epoch, NETWORK),
    "iterations": (_change_position("iteration", 3), "snapshots/epoch-0002/position.json"),
    "rows": (_change_position("rows", 2), "snapshots/epoch-0002/position.json"),
    "sums of losses": (_change_position("loss_sum", 2.5), "snapshots/epoch-0002/position.json"),
    "missing sums": (lambda run: (run / "snapshots/epoch-0002/sums.json").unlink(), "snapshots/epoch-0002/sums.json"),
    "a lost row": (_drop_row, "history.csv"),
    "a changed row": (lambda run: flip(run / "history.csv", (run / "history.csv").read_text().index("\n1,") + 5), "history.csv"),
    "a missing history": (lambda run: (run / "history.csv").unlink(), "history.csv"),
    "another network": (lambda run: flip(run / "model/model.json", 20), "model/model.json"),
    "a missing network": (lambda run: (run / "model/model.json").unlink(), "model/model.json"),
    "a name of a network that no file can have": (_name_of_network("a" * 300), "model/aaa"),
    "another setting": (_change_setting, "job.json"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_stops_resuming_testing_and_converting_and_is_named(
    what: str, stopped: Path, job: multiseg.Job, dataset: Any, tmp_path: Path
) -> None:
    damage, name = DAMAGE[what]
    damage(stopped)
    before = sorted(stopped.rglob("*"))
    resumed = replace(job, learning_rate=2e-7) if what == "another setting" else job
    calls: list[Callable[[], Any]] = [
        lambda: resumed.train(stopped, resume=True, progress=False),
        lambda: multiseg.Run.open(stopped).predict(dataset.val[0][0][None]),
        lambda: multiseg.convert(stopped, "safetensors", tmp_path / "out.safetensors"),
    ]
    for call in calls:
        with pytest.raises(RunError) as error:
            call()
        assert str(stopped / name) in str(error.value), error.value
        if name.startswith("snapshots"):
            assert "the snapshot before it without damage is epoch-0001" in str(error.value)
            assert "skip_damaged=True" in str(error.value) and "snapshot=1" in str(error.value)
    assert before == sorted(stopped.rglob("*")) and not (tmp_path / "out.safetensors").exists()


def test_a_training_goes_back_to_the_snapshot_before_the_damage_when_asked(
    stopped: Path, job: multiseg.Job, tmp_path: Path
) -> None:
    whole = job.train(tmp_path / "whole", progress=False)
    flip(stopped / "snapshots/epoch-0002/network.npz")
    with pytest.warns(MultisegWarning, match=r"epoch-0002: is damaged, and removed"):
        run = job.train(stopped, resume=True, progress=False, skip_damaged=True)
    for one, other in zip(snapshots(run.path), snapshots(whole.path), strict=True):
        assert (one.path / "network.npz").read_bytes() == (other.path / "network.npz").read_bytes()
    flip(run.path / "snapshots/epoch-0003/network.npz")
    with pytest.raises(RunError, match=r"epoch-0003/network\.npz: is damaged"):  # although the training is complete
        job.train(run.path, resume=True, progress=False)
    with pytest.warns(MultisegWarning, match="epoch-0003"):
        job.train(run.path, resume=True, progress=False, skip_damaged=True)
    assert [snapshot.is_whole() for snapshot in snapshots(run.path)] == [True] * 3


def test_without_an_undamaged_snapshot_nothing_is_removed(stopped: Path, job: multiseg.Job) -> None:
    for snapshot in snapshots(stopped):
        flip(snapshot.path / "network.npz")
    with pytest.raises(RunError, match="there is no snapshot before it without damage"):
        job.train(stopped, resume=True, progress=False, skip_damaged=True)
    assert len(snapshots(stopped)) == 2
    with pytest.raises(SettingsError, match="skip_damaged=True: needs a run to resume"):
        job.train(stopped, progress=False, skip_damaged=True)


def test_a_snapshot_of_an_earlier_version_opens_with_a_note(stopped: Path, job: multiseg.Job, dataset: Any) -> None:
    content = json.loads((stopped / "job.json").read_text())
    del content["sums"]
    (stopped / "job.json").write_text(json.dumps(content))
    for snapshot in snapshots(stopped):
        (snapshot.path / "sums.json").unlink()
    with pytest.warns(MultisegWarning, match="has no checksums"), multiseg.Run.open(stopped) as run:
        run.predict(dataset.val[0][0][None])
    with pytest.warns(MultisegWarning, match="has no checksums"):
        assert job.train(stopped, resume=True, progress=False).snapshot == Snapshot(3, stopped / "snapshots/epoch-0003")


def test_a_run_that_was_moved_or_whose_dataset_was_is_whole(stopped: Path, tmp_path: Path) -> None:
    moved = stopped.rename(tmp_path / "moved")
    content = json.loads((moved / "job.json").read_text())
    content["dataset"]["path"] = "/elsewhere"
    (moved / "job.json").write_text(json.dumps(content))
    snapshots(moved)[-1].verify()


def test_the_command_line_names_its_options(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(stopped / "snapshots/epoch-0002/network.npz")
    settings = json.loads((stopped / "job.json").read_text())
    arguments = [
        "--dataset",
        settings["dataset"]["path"],
        "--backend",
        settings["settings"]["backend"],
        "--run",
        str(stopped),
    ]
    with pytest.raises(SystemExit) as status:
        main(
            [
                "train",
                *arguments,
                "--epochs",
                "3",
                "--batch-size",
                "50",
                "--learning-rate",
                "1e-7",
                "--keep",
                "all",
                "--resume",
            ]
        )
    assert status.value.code == 2 and "resume from there with --skip-damaged" in capsys.readouterr().err
