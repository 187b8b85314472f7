"""Find a dataset by its content: in a local folder, in the store of copies, or at a URL to copy it from.

A store contains verified copies, each in a folder named by the dataset's identity. Beside each is a file with the sizes and times
of its files when it was verified: a copy whose files have others is verified again before it is used.

URLs are those that fsspec supports (``s3://``, ``https://``, ``file://``, ...), each with the package that its protocol needs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from multiseg.dataset.description import computed_hash, parse_description, read_description
from multiseg.dataset.names import FILE, MEAN
from multiseg.errors import DatasetError
from multiseg.files import make_folder, open_own, read_bytes, read_json, rename, sync_tree, try_lock, write_json

POLL_SECONDS = 0.2
_IDENTITY = re.compile("[0-9a-f]{64}-(?:none|[0-9a-f]{16})")  # it is the name of a folder in the store


def is_url(place: object) -> bool:
    """Return whether ``place`` is a URL, to be opened with fsspec, and not a folder."""
    return isinstance(place, str) and "://" in place


def store() -> Path:
    """Return the user's store of copies: ``multiseg/datasets`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multiseg" / "datasets"


def identity(folder: Path) -> str:
    """Return a dataset's identity: the content hash of its records, from its description, and the hash of its mean image."""
    stored = (read_description(folder) or {}).get("content_hash")
    return _identity(stored if isinstance(stored, str) else computed_hash(folder), _mean(folder))


def content_hash(identity: str) -> str:
    """Return the part of an identity that is the content hash of the records."""
    return identity.partition("-")[0]


def identity_at(url: str) -> str:
    """Return the identity of the dataset at a URL, from its description. Raise DatasetError if it is not multiseg's."""
    system, path = _open(url)
    with _dataset_errors(url, f"has no readable {FILE}", "; create the dataset with multiseg"):
        text = system.cat_file(f"{path}/{FILE}")
        mean = system.cat_file(f"{path}/{MEAN}") if system.exists(f"{path}/{MEAN}") else None
    stored = parse_description(text, f"{url}/{FILE}").get("content_hash")
    if not isinstance(stored, str):
        raise DatasetError(f"{url}/{FILE}: has no content_hash; create the dataset again")
    return _identity(stored, mean)


def local(url: str) -> Path:
    """Return the folder of the local copy of the dataset at a URL; download it if there is none yet."""
    wanted = identity_at(url)
    with reserved(store(), wanted) as copy:
        return copy or fetch(url, wanted, store())


def find(wanted: str, places: list[str], store_folder: Path) -> Path | None:
    """Return a folder whose content has the identity ``wanted``: the store's copy, or one of ``places`` visible here."""
    copy = store_folder / wanted
    if copy.is_dir():
        if _is_verified(copy, wanted):
            return copy
        with _store_errors(store_folder):
            shutil.rmtree(copy)  # a process that reads it keeps its files
    for place in places:
        folder = Path(place.removeprefix("file://"))
        with suppress(DatasetError, OSError):  # the folder here has other content
            if not is_url(str(folder)) and folder.is_dir() and identity(folder) == wanted:
                return folder
    return None


@contextmanager
def reserved(store_folder: Path, wanted: str, waiting: Callable[[], None] = lambda: None) -> Iterator[Path | None]:
    """Lock the store's copy of a dataset against concurrent creation; yield the copy if it exists, else None.

    ``waiting`` is called repeatedly while another process holds the lock; it may raise to end the wait.
    """
    if not _IDENTITY.fullmatch(wanted):
        raise DatasetError(f"{wanted[:80]!r}: is not the identity of a dataset; the sender is not multiseg")
    with _store_errors(store_folder):
        make_folder(store_folder)
        lock = open_own(store_folder / f".{wanted}.lock", "w")
    try:
        while try_lock(lock) == "held":
            waiting()
            time.sleep(POLL_SECONDS)
        yield find(wanted, [], store_folder)
    finally:
        os.close(lock)


def fetch(url: str, wanted: str, store_folder: Path) -> Path:
    """Copy the dataset at a URL into the store and verify it. Raise DatasetError, and leave no files, if that fails."""
    system, path = _open(url)
    part = store_folder / f".part-{wanted}"  # the remains of a killed process are overwritten
    shutil.rmtree(part, ignore_errors=True)
    with _store_errors(store_folder):
        part.mkdir()
    try:
        with _dataset_errors(url, "cannot be copied"):
            system.get(f"{path}/", f"{part}/", recursive=True)
        return keep(part, wanted, store_folder, url)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def keep(folder: Path, wanted: str, store_folder: Path, origin: str) -> Path:
    """Verify a copy by hashing its records, and move it into the store. Raise DatasetError for other content."""
    actual = identity_of_records(folder)
    if content_hash(actual) != content_hash(wanted):
        raise DatasetError(
            f"{origin}: its copy has the content hash {actual[:12]}..., not {wanted[:12]}...; it was changed, or damaged in "
            "transfer: check it with multiseg check-dataset"
        )
    if actual != wanted:
        raise DatasetError(
            f"{origin}: the mean image {MEAN} of its copy differs, or is missing; copy the dataset there again"
        )
    with _store_errors(store_folder):
        sync_tree(folder)
        rename(folder, store_folder / wanted)
        write_json(_stamps_file(store_folder / wanted), _stamps(store_folder / wanted), follow=False)
    return store_folder / wanted


def _stamps(copy: Path) -> dict[str, list[int]]:
    """Return size and modification time of the files of a copy; LMDB writes its lock whenever it opens a database."""
    files = {path.relative_to(copy).as_posix(): path.stat() for path in copy.rglob("*") if path.is_file()}
    return {
        name: [status.st_size, status.st_mtime_ns]
        for name, status in sorted(files.items())
        if not name.endswith("lock.mdb")
    }


def _stamps_file(copy: Path) -> Path:
    return copy.with_name(f".{copy.name}.stamps")


def _is_verified(copy: Path, wanted: str) -> bool:
    """Return whether a copy in the store has its content: its files are as they were, or their hashes are right."""
    stamps = _stamps(copy)
    with suppress(OSError, ValueError):
        if read_json(_stamps_file(copy), follow=False) == stamps:
            return True
    try:
        if identity_of_records(copy) != wanted:
            return False
    except (DatasetError, OSError):
        return False
    with suppress(OSError):  # a store that cannot be written: it is verified each time
        write_json(_stamps_file(copy), stamps, follow=False)
    return True


def identity_of_records(folder: Path) -> str:
    """Return a dataset's identity from its records and its mean image, not from its description."""
    return _identity(computed_hash(folder), _mean(folder))


def _mean(folder: Path) -> bytes | None:
    path = folder / MEAN
    return read_bytes(path) if path.exists() else None


def _identity(records: str, mean: bytes | None) -> str:
    return f"{records}-{'none' if mean is None else hashlib.sha256(mean).hexdigest()[:16]}"


def _open(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise DatasetError(f"{url}: needs fsspec ({error}); pip install 'multiseg[cluster]'") from error
    with _dataset_errors(url, "cannot be opened"):
        system, path = url_to_fs(url)
    return system, path.rstrip("/")


@contextmanager
def _store_errors(store_folder: Path) -> Iterator[None]:
    """Raise DatasetError naming the store for an OSError."""
    try:
        yield
    except OSError as error:
        file = f"{error.filename}: " if error.filename not in (None, str(store_folder)) else ""
        raise DatasetError(
            f"{store_folder}: a dataset cannot be copied to it: {file}{error.strerror or error}; free some space there, or set "
            "XDG_CACHE_HOME to another folder"
        ) from error


@contextmanager
def _dataset_errors(url: str, problem: str, fix: str = "") -> Iterator[None]:
    """Raise DatasetError for any error of a file system; fsspec's file systems raise various exception types."""
    try:
        yield
    except Exception as error:
        raise DatasetError(f"{url}: {problem} ({type(error).__name__}: {error}){fix}") from error
