"""Processes that read images: the same batches as without them, errors at their batch, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import lmdb
import numpy as np
import pytest

from helpers.dataset_wire import counted, raw, write_job, write_lmdb
from helpers.processes import gone
from multiseg import Dataset
from multiseg.dataset import Split, open_split
from multiseg.dataset.augmentation import Augmentation, Augmented
from multiseg.dataset.cropping import Crop
from multiseg.dataset.feed import Batch, batches, epoch_order
from multiseg.dataset.readers import Readers
from multiseg.errors import DatasetError
from multiseg.layout import Layout

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 12, 16, 3), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 256, (50, 12, 16), np.uint8)
LAYOUT = Layout("NHWC", "BGR", np.array([1, 2, 3], np.float32))


@pytest.fixture
def split(tmp_path: Path) -> Split:
    folder = write_job(tmp_path / "job", [raw(image) for image in IMAGES], [raw(image) for image in LABELS])
    return Dataset.open(folder).train


def same(one: list[Batch], other: list[Batch]) -> bool:
    """Of batches that all have labels."""
    return len(one) == len(other) and all(
        a.labels is not None
        and b.labels is not None
        and np.array_equal(a.features, b.features)
        and np.array_equal(a.labels, b.labels)
        and np.array_equal(a.indices, b.indices)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_are_those_of_one_process(split: Split, prefetch: int) -> None:
    augmentation = Augmentation.of({"flip": "both", "scale": (0.5, 2), "noise": 5, "brightness": 0.3})
    with Readers(3) as readers:
        for epoch in range(3):
            change = None if epoch == 2 else Augmented(augmentation, 7, epoch, Crop((8, 8), (1.0, 2.0, 3.0)))
            given = {"order": epoch_order(50, 1, epoch), "layout": LAYOUT, "change": change, "start": epoch}
            with batches(split, 4, **given, prefetch=prefetch, readers=readers) as feed:
                found = list(feed)
            assert len(found) == 13 - epoch
            assert same(found, list(batches(split, 4, **given)))


def test_a_pass_that_ends_early_leaves_nothing_for_the_next(split: Split) -> None:
    whole = list(batches(split, 2, layout=LAYOUT))
    with Readers(2) as readers:
        for _ in range(5):
            with batches(split, 2, layout=LAYOUT, readers=readers) as feed:
                assert same([next(feed)], whole[:1])
        assert same(list(batches(split, 2, layout=LAYOUT, readers=readers)), whole)


def test_splits_without_labels_and_empty_ones(tmp_path: Path) -> None:
    dataset = Dataset.open(write_job(tmp_path / "job", [raw(image) for image in LABELS], None))
    with Readers(1) as readers:
        found = list(batches(dataset.train, 20, readers=readers))
        assert list(batches(dataset.val, 4, readers=readers)) == []
    assert [batch.labels for batch in found] == [None, None, None]
    assert np.array_equal(np.concatenate([batch.features for batch in found])[:, 0], LABELS)


def test_an_error_comes_at_its_batch(tmp_path: Path) -> None:
    records = [raw(image) for image in LABELS]
    records[5] = b"no datum"
    split = open_split(write_lmdb(tmp_path / "features", counted(records)))
    with Readers(2) as readers:
        feed = batches(split, 2, readers=readers)
        assert [next(feed).indices[0] for _ in range(2)] == [0, 2]
        with pytest.raises(DatasetError, match="record 000000005 is not a Caffe Datum"):
            next(feed)
        assert len(list(batches(split, 2, order=np.arange(10, 20), readers=readers))) == 5


def test_the_folders_around_a_database_stand_for_it(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", [raw(image) for image in IMAGES], [raw(image) for image in LABELS])
    (folder / "train_db").rename(folder / "val_db")
    whole = open_split(folder / "val_db" / "features")
    for around in (folder, folder / "val_db"):
        split = open_split(around)
        assert split.name == whole.name and len(split) == len(whole) == 50
        assert all(np.array_equal(one, other) for one, other in zip(split[3], whole[3], strict=True) if one is not None)
    (folder / "val_db").rename(folder / "train_db")
    with pytest.raises(
        DatasetError, match=r"job: has no data.mdb; specify a database, such as DATASET/val_db/features"
    ):
        open_split(folder)


def test_a_database_that_changes_is_an_error(split: Split) -> None:
    with Readers(1) as readers, batches(split, 1, readers=readers, prefetch=0) as feed:
        next(feed)
        with lmdb.open(str(split._arguments[1]), map_size=2**24) as database, database.begin(write=True) as transaction:
            transaction.put(b"000000050", b"one more")
        with pytest.raises(DatasetError, match="was written to"):
            list(feed)


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_process_that_dies_is_one_error(split: Split, when: str) -> None:
    with Readers(2) as readers:
        list(batches(split, 10, readers=readers))
        with closing(batches(split, 1, readers=readers)) as feed:
            if when == "during":
                next(feed)
            readers._helpers[1]._process.kill()
            with pytest.raises(DatasetError, match="a process that reads images ended unexpectedly; choose fewer"):
                list(feed)


def test_nothing_is_left_when_a_training_ends_though_a_batch_is_awaited(split: Split) -> None:
    with Readers(2) as readers:
        feed = batches(split, 1, readers=readers, prefetch=1)
        next(feed)
        pids = [helper._process.pid for helper in readers._helpers]
    assert all(map(gone, pids))
    with pytest.raises(DatasetError):
        list(feed)
    for thread in threading.enumerate():
        if thread.name == "multiseg-feed":
            thread.join(10)
    assert not any(thread.name == "multiseg-feed" for thread in threading.enumerate())


def test_passes_without_a_thread_end_with_their_last_batch(split: Split) -> None:
    with Readers(1) as readers:
        first = batches(split, 20, readers=readers, prefetch=0)
        assert len(list(first)) == 3
        assert len(list(batches(split, 20, readers=readers))) == 3


def test_no_process_starts_after_the_end(split: Split) -> None:
    readers = Readers(1)
    with readers:
        pass
    with pytest.raises(DatasetError, match="ended"):
        next(batches(split, 1, readers=readers))
    assert readers._helpers == []


def test_a_signal_to_the_process_group_concerns_the_program_alone(split: Split) -> None:
    with Readers(1) as readers:
        feed = batches(split, 1, readers=readers, prefetch=0)
        next(feed)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(readers._helpers[0]._process.pid, number)
        assert len(list(feed)) == 49


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_their_program(split: Split, number: signal.Signals) -> None:
    script = (
        "from multiseg.dataset import open_split\nfrom multiseg.dataset.feed import batches\n"
        "from multiseg.dataset.readers import Readers\nimport time\n"
        f"with Readers(2) as readers:\n    feed = batches(open_split({str(split._arguments[1])!r}), 1, readers=readers)\n"
        "    next(feed)\n    print(*(helper._process.pid for helper in readers._helpers), flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        pids = list(map(int, program.stdout.readline().split()))
        program.send_signal(number)
        program.wait(20)
    assert len(pids) == 2 and all(map(gone, pids))
