"""Damaged databases and records get typed errors; nothing crashes or hangs."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.dataset_wire import chunk, counted, encoded, floats, mean, number, raw, read_lmdb, write_job, write_lmdb
from multiseg import Dataset
from multiseg.dataset import open_split
from multiseg.dataset.lmdb_file import LmdbFile
from multiseg.dataset.records import datum_pixels, parse_datum, parse_mean
from multiseg.errors import DatasetError

IMAGE = np.arange(48, dtype=np.uint8).reshape(6, 8)

COUNTS = [0, 1, 2, 60, 3000]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("size", [0, 40, 5000])
@pytest.mark.parametrize("name", ["%09d", "%d", "%08d_file.png"])
def test_the_reader_finds_what_lmdb_finds(tmp_path: Path, count: int, size: int, name: str) -> None:
    """Trees of all depths, values in pages and beyond them, in any order of writing, after deletions."""
    numbers = np.random.default_rng(count + size)
    count = min(count, 500) if size > 1000 else count
    records = [((name % index).encode(), numbers.bytes(int(numbers.integers(0, size + 1)))) for index in range(count)]
    order = numbers.permutation(count)
    folder = tmp_path / "lmdb"
    folder.mkdir()
    with lmdb.open(str(folder), map_size=1 << 27) as environment:
        for part in np.array_split(order, 3):
            with environment.begin(write=True) as transaction:
                for index in part:
                    transaction.put(*records[index])
        with environment.begin(write=True) as transaction:
            for index in range(0, count, 7):
                transaction.delete(records[index][0])
    expected = read_lmdb(folder)
    found = LmdbFile(folder)
    assert len(found) == len(expected)
    assert list(found.walk_keys()) == [key for key, _ in expected]
    assert [found[index] for index in range(len(found))] == [value for _, value in expected]
    assert [found.key(index) for index in range(0, len(found), 50)] == [key for key, _ in expected[::50]]


@pytest.fixture(scope="module")
def small_lmdb(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with branch, leaf and overflow pages."""
    values = [raw(IMAGE)] * 150 + [encoded(np.zeros((200, 200), np.uint8), compress_level=0)] * 2
    folder = write_lmdb(tmp_path_factory.mktemp("lmdb") / "small", counted(values))
    content = (folder / "data.mdb").read_bytes()
    assert struct.unpack_from("<H", content, 4096 + 94)[0] + struct.unpack_from("<H", content, 94)[0] >= 2  # depth
    return content


def read_everything(file: Path) -> None:
    split = open_split(file)
    for index in range(len(split)):
        split[index]
    assert split.shape is None or len(split.shape) == 3


@pytest.mark.parametrize("quarter", range(4))
def test_a_truncated_file_is_an_error(tmp_path: Path, small_lmdb: bytes, quarter: int) -> None:
    for length in range(quarter * 1000, len(small_lmdb) - 4096, 4000):
        (tmp_path / "data.mdb").write_bytes(small_lmdb[:length])
        with pytest.raises(DatasetError, match=r"damaged or truncated|not a database of images"):
            read_everything(tmp_path)


def test_a_file_that_gets_shorter_while_open_is_an_error(tmp_path: Path, small_lmdb: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(small_lmdb)
    split = open_split(tmp_path)
    with (tmp_path / "data.mdb").open("r+b") as file:
        file.truncate(8192)
    with pytest.raises(DatasetError, match="was truncated while open"):
        for index in range(len(split)):
            split[index]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 2**20), st.sampled_from([b"\0", b"\xff", b"\x01", b"\x7f\xff", b"\xff" * 8])),
        max_size=8,
    ),
    headers=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 160), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_damaged_file_reads_or_raises_a_typed_error(
    tmp_path: Path, small_lmdb: bytes, changes: list[tuple[int, bytes]], headers: list[tuple[int, int, int]]
) -> None:
    content = bytearray(small_lmdb)
    for position, value in changes:
        position %= len(content) - 8
        content[position : position + len(value)] = value
    for page, position, value in headers:  # where the tree's own numbers stand
        content[page * 4096 % len(content) + position] = value
    (tmp_path / "data.mdb").write_bytes(content)
    try:
        read_everything(tmp_path)
    except DatasetError as error:
        assert str(tmp_path) in str(error)


def test_pages_that_point_at_each_other_end(tmp_path: Path, small_lmdb: bytes) -> None:
    content = bytearray(small_lmdb)
    meta = max((0, 4096), key=lambda start: struct.unpack_from("<Q", content, start + 144)[0])
    (root,) = struct.unpack_from("<Q", content, meta + 128)
    lower = struct.unpack_from("<H", content, root * 4096 + 12)[0]
    for slot in range((lower - 16) // 2):
        (node,) = struct.unpack_from("<H", content, root * 4096 + 16 + 2 * slot)
        struct.pack_into("<IH", content, root * 4096 + node, root, 0)
    struct.pack_into("<H", content, meta + 94, 30)
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(DatasetError, match="damaged or truncated"):
        LmdbFile(tmp_path)


def test_another_programs_lmdb_is_an_error(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "named"), max_dbs=2, map_size=1 << 20) as environment:
        table = environment.open_db(b"table")
        with environment.begin(write=True) as transaction:
            transaction.put(b"a", b"b", db=table)
    with pytest.raises(DatasetError, match="named or duplicate-key"):
        open_split(tmp_path / "named")
    text = write_lmdb(tmp_path / "text", [(b"name", b"just a value")])
    with pytest.raises(DatasetError, match=r"text: record name is not a Caffe Datum"):
        open_split(text)[0]


def test_what_is_no_lmdb_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such database"):
        open_split(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: has no data\.mdb; specify a database"):
        open_split(tmp_path / "empty")
    for content in (b"", b"text" * 5000, bytes(9000)):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(DatasetError, match="is not a database of images"):
            open_split(tmp_path / "file")


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_as_a_datum(record: bytes) -> None:
    try:
        array = datum_pixels(parse_datum(record))
    except DatasetError:
        return
    assert array.ndim == 3


fields = st.sampled_from(
    [number(n, v) for n in (1, 2, 3, 5, 7) for v in (0, 1, 2, 7, -1, 2**31 - 1, 2**63)]
    + [chunk(4, bytes(n)) for n in (0, 1, 4, 24)]
    + [floats(6, [1.0, float("nan")], packed) for packed in (False, True)]
    + [encoded(IMAGE), encoded(IMAGE)[:-30], chunk(4, b"\x89PNG\r\n\x1a\n"), chunk(9, b"unknown")]
)


@settings(max_examples=600, deadline=None)
@given(st.lists(fields, max_size=8))
def test_any_fields_as_a_datum(parts: list[bytes]) -> None:
    try:
        array = datum_pixels(parse_datum(b"".join(parts)))
    except DatasetError:
        return
    assert array.ndim == 3
    assert array.size > 0


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.integers(0, 90).map(lambda end: mean(IMAGE[:2])[:end])))
def test_any_bytes_as_a_mean(content: bytes) -> None:
    try:
        array = parse_mean(content)
    except DatasetError:
        return
    assert array.ndim == 3


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"", "declares the shape 0x0x0"),
        (raw(IMAGE)[:20], "is not a Caffe Datum"),
        (
            number(1, 1) + number(2, 6) + number(3, 9) + chunk(4, bytes(53)),
            "contains 53 values where .* 1x6x9 needs 54",
        ),
        (number(1, 1) + number(2, 6) + number(3, 9), "contains 0 values"),
        (number(1, -1) + number(2, 6) + number(3, 9) + chunk(4, b"a"), "declares the shape -1x6x9"),
        (chunk(4, b"text") + number(7, 1), "its image: is not an image"),
        (chunk(4, b"") + number(7, 1), "its image: is empty"),
    ],
)
def test_a_bad_record_is_named_with_its_database_and_key(tmp_path: Path, record: bytes, message: str) -> None:
    folder = write_job(tmp_path / "job", [raw(IMAGE), record], [raw(IMAGE)] * 2)
    with pytest.raises(DatasetError, match=rf"train_db/features: record 000000001:? .*{message}"):
        Dataset.open(folder).train[1]


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: no such dataset folder"):
        Dataset.open(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"is not a dataset: .*train_db/features is missing"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is not multiseg's description"),
        ('{"format": "multiseg dataset", "version": 2}', "has version 2"),
    ],
)
def test_a_description_that_cannot_be_understood(tmp_path: Path, content: str, message: str) -> None:
    folder = write_job(tmp_path / "job", [raw(IMAGE)], [raw(IMAGE)])
    (folder / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match=rf"dataset\.json: {message}"):
        Dataset.open(folder)


@pytest.mark.parametrize(
    "content", [b"text", number(1, 1) + number(2, 3), mean(IMAGE)[:-3], number(1, 2) + number(2, 1)]
)
def test_a_mean_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    folder = write_job(tmp_path / "job", [raw(IMAGE)], [raw(IMAGE)])
    (folder / "train_db" / "mean.binaryproto").write_bytes(content)
    dataset = Dataset.open(folder)
    with pytest.raises(DatasetError, match=r"train_db/mean\.binaryproto: (is not|contains)"):
        _ = dataset.mean_pixel
    shutil.rmtree(folder)
