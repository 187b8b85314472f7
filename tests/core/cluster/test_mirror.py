"""A run folder's copy elsewhere, while the run folder changes."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.cluster import mirror, wire
from multiseg.cluster.mirror import Mirror
from multiseg.errors import RunError
from multiseg.run.folder import RunFolder
from multiseg.run.snapshots import snapshots


@pytest.fixture
def run(fourth: str, dataset: Any, tmp_path: Path) -> Path:
    """A run of three epochs that has kept all its snapshots."""
    job = multiseg.Job(dataset=dataset, backend=fourth, epochs=3, seed=1, keep="all")
    return job.train(tmp_path / "run", progress=False).path


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in wire.listing(folder)}


def test_it_is_the_same_in_the_end(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PIECE", 100)  # bytes: files in many pieces, and many files in one message
    copy = Mirror(tmp_path / "copy", "all")
    assert copy.update(wire.listing(run), lambda places: wire.read(run, places), ended=True)
    assert contents(tmp_path / "copy") == contents(run)
    assert not list((tmp_path / "copy/snapshots").glob(".*"))


@pytest.mark.parametrize("name", ["history.csv", "summary.json"])
def test_a_link_in_the_copy_is_replaced_and_not_followed(name: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("data")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / name).symlink_to(tmp_path / "other")
    copy = Mirror(tmp_path / "copy", "all")
    assert copy.update(wire.listing(run), lambda places: wire.read(run, places), ended=True)
    assert (tmp_path / "other").read_text() == "data" and contents(tmp_path / "copy")[name] == contents(run)[name]


def test_a_training_that_failed_before_it_began_leaves_nothing_to_copy(tmp_path: Path) -> None:
    copy = Mirror(tmp_path / "copy", "all")
    assert copy.update(wire.listing(tmp_path / "run"), lambda places: wire.read(tmp_path / "run", places), ended=True)
    assert not (tmp_path / "copy").exists()


def test_at_each_moment_it_can_be_gone_on_from(run: Path, tmp_path: Path) -> None:
    """The connection is lost after one message, then after two, and so on: what is there fits together."""
    for count in range(30):
        folder, left = tmp_path / f"copy{count}", iter(range(count))
        RunFolder.create(folder)  # as the program does

        def read(places: list[wire.Place]) -> list[bytes | None]:
            if next(left, None) is None:  # noqa: B023 - called in this round
                raise ConnectionError
            return wire.read(run, places)

        try:
            Mirror(folder, "all").update(wire.listing(run), read, ended=True)
        except ConnectionError:
            (folder / ".progress.json").write_text("{}")  # which the program writes meanwhile
            RunFolder.resume(folder)  # as a new run until job.json is there
            found = snapshots(folder)
            if found:
                assert found[-1].position.rows <= len(multiseg.Run.open(folder).history)
            assert not (folder / "summary.json").exists(), "not finished before all is here"
        else:
            assert contents(folder) == contents(run)
            return
    raise AssertionError("it never came to its end")


def test_a_file_that_changes_meanwhile_comes_the_next_time(run: Path, tmp_path: Path) -> None:
    copy, stale = Mirror(tmp_path / "copy", "all"), wire.listing(run)
    log = run / "events.jsonl"
    log.write_text(log.read_text() + '{"event": "more"}\n')
    os.utime(log, ns=(1, 1))  # whatever the clock's resolution
    assert not copy.update(stale, lambda places: wire.read(run, places), ended=False)
    assert not (tmp_path / "copy/events.jsonl").exists() and not (tmp_path / "copy/summary.json").exists()
    assert copy.update(wire.listing(run), lambda places: wire.read(run, places), ended=True)
    assert contents(tmp_path / "copy") == contents(run)


def test_snapshots_come_with_the_rows_that_were_there_before_them(run: Path, tmp_path: Path) -> None:
    """Rows are added while the run folder is looked through: those of the last epochs after the history was looked at."""
    history = run / "history.csv"
    rows = history.read_text().splitlines(keepends=True)
    history.write_text("".join(rows[:2]))
    there = wire.listing(run)
    history.write_text("".join(rows))
    os.utime(history, ns=(1, 1))
    Mirror(tmp_path / "copy", "all").update(there, lambda places: wire.read(run, places), ended=False)
    last = snapshots(tmp_path / "copy")[-1]
    assert last.epoch == 3 and last.position.rows == 4 == len(multiseg.Run.open(tmp_path / "copy").history)


def test_links_to_folders_are_followed(run: Path, tmp_path: Path) -> None:
    """Snapshots may lie on a larger disk."""
    (run / "snapshots").rename(tmp_path / "disk")
    (run / "snapshots").symlink_to(tmp_path / "disk")
    assert "snapshots/epoch-0003/position.json" in mirror.to_resume(run)


def test_a_snapshot_that_goes_meanwhile_is_not_needed(run: Path, tmp_path: Path) -> None:
    there = wire.listing(run)
    shutil.rmtree(run / "snapshots/epoch-0001")
    copy = Mirror(tmp_path / "copy", "all")
    assert not copy.update(there, lambda places: wire.read(run, places), ended=True)
    assert copy.update(wire.listing(run), lambda places: wire.read(run, places), ended=True)
    assert [each.path.name for each in snapshots(tmp_path / "copy")] == ["epoch-0002", "epoch-0003"]


def test_it_keeps_the_snapshots_that_the_training_would(run: Path, tmp_path: Path) -> None:
    rows = multiseg.Run.open(run).history[1:]
    best = min(rows, key=lambda row: row["l1"])["epoch"]
    Mirror(tmp_path / "copy", "best").update(wire.listing(run), lambda places: wire.read(run, places), ended=True)
    assert {each.epoch for each in snapshots(tmp_path / "copy")} == {best, 3}


def test_the_best_snapshot_is_that_of_the_runs_own_metric(run: Path, tmp_path: Path) -> None:
    """A job that resumes a run may leave the metric out."""
    source = shutil.copytree(run, tmp_path / "source")
    job = json.loads((source / "job.json").read_text())
    job["settings"]["metric"] = "val_loss"
    (source / "job.json").write_text(json.dumps(job))
    head, *rows = csv.reader((source / "history.csv").read_text().splitlines())
    for row, l1, loss in zip(rows[1:], (1, 2, 3), (3, 1, 2), strict=True):
        row[head.index("l1")], row[head.index("val_loss")] = str(l1), str(loss)
    (source / "history.csv").write_text("".join(f"{','.join(row)}\n" for row in (head, *rows)))
    copy = Mirror(tmp_path / "copy", "best")
    copy.update(wire.listing(source), lambda places: wire.read(source, places), ended=True)
    assert {each.epoch for each in snapshots(tmp_path / "copy")} == {2, 3}


def test_snapshots_on_the_way_take_their_share_of_the_time_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first takes 2 seconds: the next one is not fetched within 20."""
    clock = [100.0]
    monkeypatch.setattr(mirror.time, "monotonic", lambda: clock[0])

    def read(places: list[wire.Place]) -> list[bytes | None]:
        if places[0][0].startswith("snapshots/"):
            clock[0] += 2
        return wire.read(run, places)

    there = wire.listing(run)
    first = {
        name: stamp
        for name, stamp in there.items()
        if not name.startswith(("snapshots/epoch-0002", "snapshots/epoch-0003"))
    }
    copy = Mirror(tmp_path / "copy", "all")
    copy.update(first, read, ended=False)
    assert len(snapshots(tmp_path / "copy")) == 1
    clock[0] += 19
    assert not copy.update(there, read, ended=False)
    assert len(snapshots(tmp_path / "copy")) == 1
    clock[0] += 2
    assert copy.update(there, read, ended=False)
    assert len(snapshots(tmp_path / "copy")) == 3


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
def test_nothing_outside_the_folder_is_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(RunError, match="not the name of a file"):
        wire.write(tmp_path / "in", [(name, 0, b"x")])
    with pytest.raises(RunError, match="not the name of a file"):
        wire.read(tmp_path / "in", [(name, 0, 1, 0)])
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_a_training_needs_to_go_on(run: Path, tmp_path: Path) -> None:
    for name in mirror.to_resume(run):
        target = tmp_path / "moved" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, target)
    moved = multiseg.Run.open(tmp_path / "moved")
    assert [each.path.name for each in snapshots(moved.path)] == ["epoch-0003"]
    assert json.loads((moved.path / "summary.json").read_text())["status"] == "finished"


def test_a_listing_does_not_follow_links_out_of_its_folder(tmp_path: Path) -> None:
    folder, secret = tmp_path / "folder", tmp_path / "secret"
    (folder / "a").mkdir(parents=True)
    secret.write_text("x")
    (folder / "a/file").write_text("y")
    (folder / "inside").symlink_to("a/file")
    assert [*wire.listing(folder)] == ["inside", "a/file"]
    (folder / "a/link").symlink_to(secret)
    with pytest.raises(RunError, match=r"a/link: is a symbolic link to outside of .*folder; replace it"):
        wire.listing(folder)
    (folder / "a/link").unlink()
    (folder / "loop").symlink_to(".")
    with pytest.raises(RunError, match=r"loop: is a symbolic link to a folder; replace it"):
        wire.listing(folder)


@pytest.mark.parametrize(
    "listing",
    [[], {"a": 3}, {"a": [1]}, {"a": [-1, 1]}, {"a": [1.5, 1]}, {"a": [2**63, 1]}, {"../a": [1, 1]}, {"/a": [1, 1]},
     {"a\0": [1, 1]}, {"a/" + "b" * 256: [1, 1]}, {"a/" * 900 + "b": [1, 1]}, {"": [1, 1]}, {3: [1, 1]}],
)  # fmt: skip
def test_what_is_no_listing_is_refused_before_anything_is_written(listing: Any, tmp_path: Path) -> None:
    def read(places: list[wire.Place]) -> list[bytes | None]:
        raise AssertionError("nothing is read")

    with pytest.raises(RunError, match="the sender is not multiseg"):
        Mirror(tmp_path / "copy", "all").update(listing, read, ended=True)
    assert not (tmp_path / "copy").exists()


def test_a_file_beside_the_snapshots_is_not_one(run: Path, tmp_path: Path) -> None:
    (run / "snapshots/epoch-work.npz").write_bytes(b"x")
    copy = Mirror(tmp_path / "copy", "all")
    assert copy.update(wire.listing(run), lambda places: wire.read(run, places), ended=True)
    assert len(snapshots(tmp_path / "copy")) == 3 and not (tmp_path / "copy/snapshots/epoch-work.npz").exists()


def test_a_file_that_keeps_changing_does_not_block(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PAUSE_SECONDS", 0.0)
    copy, updates, log = Mirror(tmp_path / "copy", "all"), [], run / "worker.log"

    def update() -> bool:
        stale = wire.listing(run)
        updates.append(len(updates))
        log.write_text("x" * len(updates))
        os.utime(log, ns=(len(updates), 1 + len(updates)))
        return copy.update(stale, lambda places: wire.read(run, places), ended=True)

    with pytest.raises(RunError, match=r"copy: worker\.log of the run kept changing in the worker"):
        copy.finish(update, lambda: False)
    assert len(updates) == mirror.MOST_ATTEMPTS
    assert snapshots(tmp_path / "copy") and not (tmp_path / "copy/summary.json").exists()  # it is resumed
    with pytest.raises(RunError, match="kept changing"):
        copy.finish(update, lambda: True)  # after Ctrl-C
    assert len(updates) == mirror.MOST_ATTEMPTS + 1
    assert copy.update(wire.listing(run), lambda places: wire.read(run, places), ended=True)
    assert copy.missing == [] and contents(tmp_path / "copy") == contents(run)


def test_a_listing_that_is_too_large_is_refused(run: Path, tmp_path: Path) -> None:
    def read(places: list[wire.Place]) -> list[bytes | None]:
        raise AssertionError("nothing is read")

    copy = Mirror(tmp_path / "copy", "all")
    with pytest.raises(
        RunError, match=rf"the files of the run in the worker have {2**62} bytes, and \d+ are free here"
    ):
        copy.update({"job.json": (2**62, 1)}, read, ended=False)
    with pytest.raises(RunError, match="a listing of 100001 files; a run has at most 100000"):
        copy.update({f"{number}": (0, 1) for number in range(100_001)}, read, ended=False)
    assert not (tmp_path / "copy").exists()
