"""Decoded images that stay in memory: the same pairs, each decoded once, within the memory that is allowed."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from helpers.dataset_wire import raw, write_job
from multiseg import Dataset
from multiseg.dataset import Split, decoded, memory, reading
from multiseg.dataset.augmentation import Augmentation, Augmented
from multiseg.dataset.cropping import Crop
from multiseg.dataset.decoded import Budget, Limit, PairsInFiles, SharedFiles
from multiseg.dataset.feed import batches, epoch_order
from multiseg.dataset.memory import available_memory
from multiseg.dataset.readers import Readers
from multiseg.errors import DatasetError
from multiseg.layout import Layout

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 12, 16, 3), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 256, (20, 12, 16), np.uint8)
PAIR = 12 * 16 * (3 + 1) + 750  # bytes, with those of its objects


@pytest.fixture
def split(tmp_path: Path) -> Split:
    folder = write_job(tmp_path / "job", [raw(image) for image in IMAGES], [raw(image) for image in LABELS])
    return Dataset.open(folder).train


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each image that was decoded."""
    original, calls = reading.datum_pixels, []

    def counting(datum: Any, record: bytes = b"") -> Any:
        calls.append(1)
        return original(datum, record)

    monkeypatch.setattr(reading, "datum_pixels", counting)
    return calls


def test_each_image_is_decoded_once(split: Split, decodings: list[int]) -> None:
    with Readers(0, Limit(20 * PAIR)) as readers:
        for epoch in range(3):
            list(batches(split, 3, order=epoch_order(20, 1, epoch), readers=readers))
    assert len(decodings) == 2 * 20


@pytest.mark.parametrize("kept", [0, 7])
def test_what_exceeds_the_memory_is_decoded_again(split: Split, decodings: list[int], kept: int) -> None:
    with Readers(0, Limit(kept * PAIR + PAIR - 1)) as readers:
        for _ in range(3):
            list(batches(split, 3, readers=readers))
    assert len(decodings) == 2 * (20 + 2 * (20 - kept))


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("kept", [0, 7, 100])
def test_batches_are_the_same(split: Split, workers: int, kept: int) -> None:
    augmentation = Augmentation.of({"flip": "both", "scale": (0.5, 2), "rotation": 20, "noise": 5})
    with Readers(workers, Limit(kept * 2 * PAIR)) as readers:
        for epoch in range(3):
            change = Augmented(augmentation, 7, epoch, Crop((8, 8), (1.0, 2.0, 3.0))) if epoch else None
            values: dict[str, Any] = {"order": epoch_order(20, 1, epoch), "layout": Layout("NHWC"), "change": change}
            for batch, other in zip(
                batches(split, 4, readers=readers, **values), batches(split, 4, **values), strict=True
            ):
                assert batch.labels is not None and other.labels is not None
                assert np.array_equal(batch.features, other.features)
                assert np.array_equal(batch.labels, other.labels)


def test_splits_are_kept_apart(tmp_path: Path) -> None:
    one, other = (
        Dataset.open(write_job(tmp_path / name, [raw(image) for image in images], None)).train
        for name, images in (("a", LABELS), ("b", LABELS[::-1]))
    )
    for workers in (0, 2):
        with Readers(workers, Limit(10**6)) as readers:
            for _ in range(2):
                assert np.array_equal(next(batches(one, 20, readers=readers)).features[:, 0], LABELS)
                assert np.array_equal(next(batches(other, 20, readers=readers)).features[:, 0], LABELS[::-1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_database_that_changes_is_an_error(split: Split, workers: int) -> None:
    with Readers(workers, Limit(10**6)) as readers:
        list(batches(split, 5, readers=readers))
        with lmdb.open(str(split._arguments[1]), map_size=2**24) as database, database.begin(write=True) as transaction:
            transaction.put(b"000000050", b"one more")
        with pytest.raises(DatasetError, match="was written to"):
            list(batches(split, 5, readers=readers))


@pytest.fixture
def files() -> Iterator[list[int]]:
    descriptors = SharedFiles.create(2, Limit(4096))
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_file_has_pairs_of_any_type_and_shape(files: list[int]) -> None:
    pairs = {
        3: (np.arange(30, dtype=np.uint8).reshape(3, 2, 5)[::-1], np.full((1, 1, 1), 7, np.int32)),
        8: (np.linspace(0, 1, 9, dtype=np.float32).reshape(1, 3, 3), None),
    }
    written = PairsInFiles(SharedFiles(files, Limit(4096), 1), {})
    for index, pair in pairs.items():
        written.put(index, pair)
    found = PairsInFiles(SharedFiles(files, Limit(4096), 0), written.added)
    for index, (feature, label) in pairs.items():
        kept = found.get(index)
        assert kept is not None
        assert np.array_equal(kept[0], feature) and kept[0].dtype == feature.dtype
        assert kept[1] is None if label is None else np.array_equal(kept[1], label)
        with pytest.raises(ValueError, match="read-only"):
            kept[0][0] = 0
    assert found.get(0) is None


def test_a_full_file_keeps_no_more(files: list[int]) -> None:
    pairs = PairsInFiles(SharedFiles(files, Limit(4096), 0), {})
    for index in range(5):
        pairs.put(index, (np.zeros((1, 18, 18), np.uint8), None))
    assert sorted(pairs.added) == [0, 1, 2]


def test_a_pass_that_ends_early_loses_no_space(split: Split) -> None:
    with Readers(2, Limit(2 * 20 * PAIR)) as readers:
        for _ in range(6):
            with batches(split, 2, readers=readers) as feed:
                next(feed)
        list(batches(split, 2, readers=readers))
        assert sorted(*(places.keys() for places in readers._places.values())) == list(range(20))


def test_large_batches_do_not_fill_the_pipes(tmp_path: Path) -> None:
    """Half of the pairs have places in the request, and the other half in the answer, which both exceed a pipe's buffer."""
    images = np.zeros((30000, 1, 1), np.uint8)
    split = Dataset.open(write_job(tmp_path / "job", [raw(image) for image in images], None)).train
    with Readers(1, Limit(10**9)) as readers:
        list(batches(split, 15000, order=np.arange(0, 30000, 2), readers=readers))
        assert sum(len(batch.indices) for batch in batches(split, 10000, readers=readers)) == 30000


def test_without_files_in_memory_images_are_decoded_again(split: Split) -> None:
    """Under a limit on the size of files, as on a cluster."""
    kind = resource.RLIMIT_FSIZE
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (10**6, before[1]))
    try:
        with Readers(1, Limit(10**9)) as readers:
            for _ in range(2):
                assert len(list(batches(split, 4, readers=readers))) == 5
    finally:
        resource.setrlimit(kind, before)


def test_nothing_stays_after_the_end(split: Split) -> None:
    for workers in (0, 1):
        with Readers(workers, Limit(10**6)) as readers:
            list(batches(split, 4, readers=readers))
            assert readers._places or readers._pairs
        assert not readers._places and not readers._pairs


def test_available_memory_is_part_of_the_machine() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_memory() <= total


VERSIONS = {
    2: ("0::/", "", ("memory.max", "memory.current"), ""),
    1: ("4:cpu,memory:/", "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("group", ["", "job/step"])
@pytest.mark.parametrize(("limit", "expected"), [("5000", 3700), ("max", None), ("1000", 0)])
def test_a_container_or_a_job_limits_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, group: str, limit: str, expected: int | None
) -> None:
    """2,000 bytes are used, of which the page cache has 700; the limit is that of the group ``job`` or of the container."""
    line, root, (most, used), prefix = VERSIONS[version]
    folder = tmp_path / root / (group and "job")
    (folder / "step").mkdir(parents=True)
    (folder / most).write_text(limit + "\n")
    (folder / used).write_text("2000\n")
    (folder / "memory.stat").write_text(f"anon 1\n{prefix}inactive_file 600\n{prefix}active_file 100\n")
    (tmp_path / "own").write_text(f"3:pids:/x\n{line}{group}\n")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    found = available_memory()
    assert found == expected if expected is not None else found > 10**6


def test_little_memory_is_not_exceeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "available_memory", lambda: 50 * 10**6)
    budget = Budget(Limit(10**12, 1 / 4))
    assert sum(budget.take(10**6 - 750) for _ in range(100)) == 16  # u is a quarter of 50 MB and u


@pytest.mark.parametrize("programs", [1, 4])
def test_programs_that_fill_their_shares_at_once_leave_memory(monkeypatch: pytest.MonkeyPatch, programs: int) -> None:
    """Of 70 GB, one program takes a quarter, and four take a seventh each: u is a quarter of (70 - 4 u) + u."""
    taken = [0] * programs
    monkeypatch.setattr(decoded, "available_memory", lambda: 70 * 10**9 - sum(taken))
    budgets = [Budget(Limit(10**12, 1 / 4)) for _ in range(programs)]
    growing = list(range(programs))
    while growing:
        growing = [number for number in growing if budgets[number].take(10**7)]
        for number in growing:
            taken[number] += 10**7
    assert taken == pytest.approx([{1: 17.5e9, 4: 10e9}[programs]] * programs, rel=0.02)
