"""Datasets by their content: in a folder, in the store, at a URL."""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fsspec
import pytest

import multiseg
from multiseg.dataset import location
from multiseg.errors import DatasetError


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/multiseg/datasets"


@pytest.fixture
def url(dataset: Any) -> str:
    """The dataset in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.put(f"{dataset.path}/", "/bucket/triangles/", recursive=True)
    return "memory://bucket/triangles"


def test_a_dataset_at_a_url_is_copied_once_and_verified(url: str, dataset: Any, cache: Path) -> None:
    found = multiseg.Dataset.open(url)
    assert found.path == cache / location.identity(dataset.path)
    assert (found.train[3][0] == dataset.train[3][0]).all() and len(found.val) == len(dataset.val)
    again = fsspec.filesystem("memory")
    again.rm("/bucket/triangles/train_db/features", recursive=True)  # nobody looks there any more
    assert multiseg.Dataset.open(url).path == found.path
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [location.identity(dataset.path)]


def test_a_copy_with_another_content_is_refused_and_nothing_stays(url: str, dataset: Any, cache: Path) -> None:
    memory = fsspec.filesystem("memory")
    said = json.loads(memory.cat_file("/bucket/triangles/dataset.json"))
    memory.pipe_file("/bucket/triangles/dataset.json", json.dumps({**said, "content_hash": "0" * 64}).encode())
    with pytest.raises(
        DatasetError, match=rf"{url}: its copy has the content hash {dataset.content_hash[:12]}.*, not 0{{12}}"
    ):
        multiseg.Dataset.open(url)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_copy_that_lost_its_mean_image_is_refused(url: str, dataset: Any, cache: Path) -> None:
    wanted = location.identity(dataset.path)
    fsspec.filesystem("memory").rm("/bucket/triangles/train_db/mean.binaryproto")
    cache.mkdir(parents=True)
    with pytest.raises(DatasetError, match=rf"{url}: the mean image train_db/mean.binaryproto of its copy differs, or"):
        location.fetch(url, wanted, cache)
    assert not list(cache.iterdir())


def test_a_copy_that_was_changed_is_verified_again(url: str, dataset: Any, cache: Path) -> None:
    wanted = location.identity(dataset.path)
    copy = location.local(url)
    mean, records = copy / "train_db/mean.binaryproto", copy / "train_db/features/data.mdb"
    for path in (mean, records):  # another time, the same content: it stays
        os.utime(path, ns=(1, 1))
    marked = copy / "marked"
    marked.touch()
    assert location.local(url) == copy and marked.exists()
    content = records.read_bytes()
    assert b"IDAT" in content  # of the records, which are PNG
    records.write_bytes(content.replace(b"IDAT", b"IDAS"))
    assert location.local(url) == copy and not marked.exists()  # copied again
    assert location.identity_of_records(copy) == wanted
    mean.write_bytes(mean.read_bytes()[:-1] + b"\0")
    (cache / f".{wanted}.stamps").unlink()  # of a version that did not write it
    assert location.find(wanted, [], cache) is None and not copy.exists()


@pytest.mark.parametrize(("place", "words"), [
    ("memory://nowhere", "memory://nowhere: has no readable dataset.json"),
    ("nonsense://x", "nonsense://x: cannot be opened (ValueError: Protocol not known: nonsense"),
    ("gs://bucket/x", "gs://bucket/x: cannot be opened (ImportError: "),  # it takes a package of its own
    (f"zip://x::file://{__file__}", f"zip://x::file://{__file__}: cannot be opened (BadZipFile: "),
])  # fmt: skip
def test_what_is_no_dataset_is_named(place: str, words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        multiseg.Dataset.open(place)
    assert str(caught.value).startswith(words)


def test_it_is_found_by_its_content_not_by_its_name(dataset: Any, tmp_path: Path) -> None:
    other, moved, plain = tmp_path / "other", tmp_path / "moved", tmp_path / "plain"
    for path in (other, moved, plain):
        shutil.copytree(dataset.path, path)
    said = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**said, "content_hash": "1" * 64}))
    (plain / "dataset.json").unlink()  # as DIGITS leaves it: its records are read
    places = [str(tmp_path / "none"), str(other)]
    store = tmp_path / "store"
    wanted = location.identity(dataset.path)
    assert location.find(wanted, places, store) is None
    assert location.find(wanted, [*places, str(moved)], store) == moved
    assert location.find(wanted, [*places, f"file://{plain}"], store) == plain
    (moved / "train_db/mean.binaryproto").unlink()  # what is trained depends on it, too
    assert location.find(wanted, [str(moved)], store) is None


def test_of_two_who_want_a_copy_one_makes_it(url: str, dataset: Any, cache: Path) -> None:
    order: list[str] = []
    wanted = location.identity(dataset.path)

    def second() -> None:
        with location.reserved(cache, wanted, lambda: order.append("waits")) as found:
            order.append("found" if found else "none")

    with location.reserved(cache, wanted) as found:
        assert found is None
        thread = threading.Thread(target=second)
        thread.start()
        while not order:
            pass
        location.fetch(url, wanted, cache)
    thread.join()
    assert order[-1] == "found"


@pytest.mark.parametrize("linked", ["lock", "stamps"])
def test_a_link_in_the_store_changes_no_other_file(linked: str, url: str, dataset: Any, cache: Path) -> None:
    wanted = location.identity(dataset.path)
    other = cache.parent / "other"
    cache.mkdir(parents=True)
    other.write_text("data")
    (cache / f".{wanted}.{linked}").symlink_to(other)
    with pytest.raises(DatasetError, match=r"\.lock: is a symbolic link") if linked == "lock" else nullcontext():
        location.local(url)
    assert other.read_text() == "data"


def test_a_table_of_jobs_may_name_a_url(url: str, fourth: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(f"[[job]]\ndataset = '{url}'\nbackend = 'numpy'\nepochs = 1\n")
    given = multiseg.read_jobs(tmp_path / "jobs.toml")
    assert given.jobs["numpy"].dataset == url
    assert [each.status for each in multiseg.train_jobs(given.jobs, given.runs)] == ["finished"]
