"""Orders and batches for training."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers.dataset_sums import sum_of_features
from helpers.dataset_wire import counted, raw, write_job, write_lmdb
from multiseg import Dataset
from multiseg.dataset import Split, open_split
from multiseg.dataset.feed import batches, epoch_order
from multiseg.errors import DatasetError, SettingsError
from multiseg.layout import Layout

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 4, 6, 3), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 256, (10, 4, 6), np.uint8)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    folder = write_job(tmp_path / "job", [raw(image) for image in IMAGES], [raw(image) for image in LABELS])
    return Dataset.open(folder).train


PINNED = {(0, 0): [3, 2, 1, 6, 0, 7, 4, 5], (0, 1): [7, 4, 5, 1, 6, 2, 0, 3], (1, 0): [2, 4, 7, 5, 0, 6, 3, 1]}


def feeders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "multiseg-feed"]


def wait_for_no_feeders() -> None:
    end = time.monotonic() + 5
    while feeders():
        assert time.monotonic() < end, "a thread is left over"
        time.sleep(0.01)


def test_an_epochs_order_is_what_pcg64s_published_algorithm_gives() -> None:
    """PCG XSL RR 128/64 (O'Neill 2014), seeded from SeedSequence((seed, epoch)), in plain Python."""

    def raw_stream(seed: int, epoch: int, count: int) -> list[int]:
        words = [int(word) for word in np.random.SeedSequence((seed, epoch)).generate_state(4, np.uint64)]
        mask = (1 << 128) - 1
        state, increment = words[0] << 64 | words[1], (words[2] << 64 | words[3]) << 1 & mask | 1
        multiplier = 47026247687942121848144207491837523525
        state = ((increment + state) * multiplier + increment) & mask
        out = []
        for _ in range(count):
            state = (state * multiplier + increment) & mask
            mixed, turn = (state >> 64 ^ state) & (1 << 64) - 1, state >> 122
            out.append((mixed >> turn | mixed << (-turn & 63)) & (1 << 64) - 1)
        return out

    for seed, epoch, count in ((0, 0, 10), (7, 3, 100)):
        stream = raw_stream(seed, epoch, count)
        order = epoch_order(count, seed, epoch)
        assert order.dtype == np.int64
        assert order.tolist() == sorted(range(count), key=stream.__getitem__)


def test_orders_are_pinned_for_all_versions() -> None:
    assert epoch_order(8, 0, 0).tolist() == PINNED[0, 0]
    assert epoch_order(8, 0, 1).tolist() == PINNED[0, 1]
    assert epoch_order(8, 1, 0).tolist() == PINNED[1, 0]


def test_an_epochs_order_is_a_permutation() -> None:
    for count in (0, 1, 1000):
        assert sorted(epoch_order(count, 5, 2).tolist()) == list(range(count))
    assert epoch_order(100, 1, 0).tolist() != epoch_order(100, 1, 1).tolist() != epoch_order(100, 2, 1).tolist()
    for wrong in ((-1, 0, 0), (1, -1, 0), (1, 0, -1)):
        with pytest.raises(SettingsError):
            epoch_order(*wrong)


@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("start", [0, 1, 3, 4, 9])
def test_batches_follow_the_order(split: Split, prefetch: int, start: int) -> None:
    order = epoch_order(10, 3, 0)
    mean = np.array([1, 2, 3], np.float32)
    with batches(split, 3, order, Layout("NHWC", "BGR", mean), prefetch=prefetch, start=start) as feed:
        expected = [order[first : first + 3] for first in range(start * 3, 10, 3)]
        assert len(feed) == len(expected)
        found = list(feed)
    assert [batch.indices.tolist() for batch in found] == [indices.tolist() for indices in expected]
    for batch, indices in zip(found, expected, strict=True):
        assert batch.features.dtype == batch.labels.dtype == np.float32
        assert np.array_equal(batch.features, IMAGES[indices][..., ::-1].astype(np.float32) - mean[::-1])
        assert np.array_equal(batch.labels, LABELS[indices][..., np.newaxis])
    wait_for_no_feeders()


def test_by_default_batches_are_neutral_and_in_stored_order(split: Split) -> None:
    found = list(batches(split, 4))
    assert [len(batch.indices) for batch in found] == [4, 4, 2]
    assert np.array_equal(np.concatenate([batch.features for batch in found]), IMAGES.transpose(0, 3, 1, 2))
    assert np.array_equal(np.concatenate([batch.indices for batch in found]), np.arange(10))


def test_an_empty_split_and_one_without_labels(tmp_path: Path) -> None:
    dataset = Dataset.open(write_job(tmp_path / "job", [raw(image) for image in LABELS], None))
    assert list(batches(dataset.val, 4)) == []
    assert dataset.val.shape is None
    assert all(batch.labels is None for batch in batches(dataset.train, 4))


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"prefetch": -1}, {"start": -1}])
def test_numbers_that_cannot_be(split: Split, wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        batches(split, **{"batch_size": 2, **wrong})


def test_closing_dropping_or_failing_ends_the_thread(split: Split) -> None:
    feed = batches(split, 1, prefetch=1)
    next(feed)
    assert feeders()
    feed.close()
    feed.close()
    with pytest.raises(StopIteration):
        next(feed)
    wait_for_no_feeders()
    feed = batches(split, 1, prefetch=1)
    next(feed)
    del feed
    gc.collect()
    wait_for_no_feeders()
    with pytest.raises(ZeroDivisionError), batches(split, 1, prefetch=1) as feed:
        next(feed)
        raise ZeroDivisionError
    wait_for_no_feeders()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_errors_reach_the_reader_at_their_batch(tmp_path: Path, prefetch: int) -> None:
    records = [raw(image) for image in LABELS]
    records[5] = b"no datum"
    split = open_split(write_lmdb(tmp_path / "features", counted(records)))
    feed = batches(split, 2, prefetch=prefetch)
    assert [next(feed).indices[0] for _ in range(2)] == [0, 2]
    with pytest.raises(DatasetError, match="record 000000005 is not a Caffe Datum"):
        next(feed)
    with pytest.raises(StopIteration):
        next(feed)
    wait_for_no_feeders()


def test_an_interpreter_ends_though_a_feed_is_open(split: Split) -> None:
    script = (
        "from multiseg.dataset import open_split\nfrom multiseg.dataset.feed import batches\n"
        f"feed = batches(open_split({str(split._arguments[1])!r}), 1)\nprint(next(feed).indices)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0]\n", "")


def test_splits_read_alike_from_threads_forks_and_pickles(split: Split) -> None:
    expected = [split[index][0].tobytes() for index in range(10)]
    results: list[list[bytes]] = []
    threads = [
        threading.Thread(target=lambda: results.append([split[index][0].tobytes() for index in range(10)]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8
    copy = pickle.loads(pickle.dumps(split))
    assert [copy[index][0].tobytes() for index in range(10)] == expected
    script = (
        "import os, sys\nfrom multiseg.dataset import open_split\n"
        f"split = open_split({str(split._arguments[1])!r})\nbefore = split[3][0].tobytes()\n"
        "child = os.fork()\nsame = split[3][0].tobytes() == before\n"
        "if not child: os._exit(0 if same else 1)\nsys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30).returncode == 0


def test_several_processes_read_one_dataset_and_leave_no_lock_files(split: Split) -> None:
    path = split._arguments[1]
    before = sorted(path.iterdir())
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("forkserver")) as pool:
        assert list(pool.map(sum_of_features, [path] * 6)) == [int(IMAGES.sum())] * 6
    assert sorted(path.iterdir()) == before


def test_reading_a_folder_that_may_not_be_written(split: Split) -> None:
    folder = split._arguments[1]
    (folder / "lock.mdb").unlink()
    folder.chmod(0o555)
    assert len(open_split(folder)) == 10
    assert sorted(path.name for path in folder.iterdir()) == ["data.mdb"]
    folder.chmod(0o755)


def test_splits_behave_like_sequences(split: Split) -> None:
    assert len(split) == 10
    assert np.array_equal(split[-1][0], split[9][0])
    for beyond in (10, -11):
        with pytest.raises(IndexError, match="has 10 pairs"):
            split[beyond]
    assert sum(1 for _ in split) == 10
    feature, _ = split[0]
    feature[:] = 0  # a copy of the caller's own
    assert split[0][0].any()
    features, labels = split.read([])
    assert features.shape == (0, 3, 4, 6)
    assert labels.shape == (0, 1, 4, 6)


def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    """Reading twenty times the data may take what the index needs: 12 bytes a record, not the records."""
    script = (
        "import re, sys\nfrom pathlib import Path\nfrom multiseg.dataset import open_split\n"
        "from multiseg.dataset.feed import batches, epoch_order\n"
        "split = open_split(sys.argv[1])\nfor batch in batches(split, 32, epoch_order(len(split), 0, 0)): pass\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])\n"
    )
    peaks = []
    for count in (100, 2000):
        folder = write_lmdb(tmp_path / str(count), counted([raw(np.zeros((160, 160), np.uint8))] * count))
        done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 20  # MB; the larger database has 51 MB
