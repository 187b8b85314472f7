"""Finding a dataset by its content: in a folder that is seen here, in the store of copies, or at a URL to copy it from.

A store holds verified copies, each in a folder named by its identity. URLs are what fsspec takes (``s3://``, ``https://``,
``file://``, ...), each with the package that it needs for that.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from multiseg.dataset.description import FILE, computed_hash, parse_description, read_description
from multiseg.errors import DatasetError
from multiseg.files import sync

POLL_SECONDS = 0.2
MEAN = "train_db/mean.binaryproto"


def is_url(place: object) -> bool:
    """Whether it names a place through fsspec, and not a folder."""
    return isinstance(place, str) and "://" in place


def store() -> Path:
    """Where copies for programs of this user are kept: ``multiseg/datasets`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multiseg" / "datasets"


def identity(folder: Path) -> str:
    """What tells a dataset's content, as its description has it: the content hash of its records, and the mean image's."""
    said = (read_description(folder) or {}).get("content_hash")
    return _identity(said if isinstance(said, str) else computed_hash(folder), _mean(folder))


def content_hash(identity: str) -> str:
    """That of the records alone."""
    return identity.partition("-")[0]


def identity_at(url: str) -> str:
    """That of the dataset at a URL, as it says. Raises DatasetError where there is no dataset of ours."""
    system, path = _open(url)
    with _telling(url, f"has no {FILE} that can be read", "; create the dataset with multiseg"):
        text = system.cat_file(f"{path}/{FILE}")
        mean = system.cat_file(f"{path}/{MEAN}") if system.exists(f"{path}/{MEAN}") else None
    found = parse_description(text, f"{url}/{FILE}").get("content_hash")
    if not isinstance(found, str):
        raise DatasetError(f"{url}/{FILE}: has no content_hash; create the dataset again")
    return _identity(found, mean)


def local(url: str) -> Path:
    """The folder of the copy of the dataset at a URL, which is made where there is none yet."""
    wanted = identity_at(url)
    with reserved(store(), wanted) as found:
        return found or fetch(url, wanted, store())


def find(wanted: str, places: list[str], kept: Path) -> Path | None:
    """A folder with the content of that identity: the store's copy, or one of ``places`` that is seen here."""
    copy = kept / wanted
    if copy.is_dir():
        return copy
    for place in places:
        folder = Path(place.removeprefix("file://"))
        with suppress(DatasetError, OSError):  # another one lies there
            if not is_url(str(folder)) and folder.is_dir() and identity(folder) == wanted:
                return folder
    return None


@contextmanager
def reserved(kept: Path, wanted: str, waiting: Callable[[], None] = lambda: None) -> Iterator[Path | None]:
    """Within it nobody else makes a copy of that content in the store; the copy, where somebody has made it before.

    ``waiting`` is called while somebody is at it, and may raise to end the wait.
    """
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / f".{wanted}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(POLL_SECONDS)
        yield find(wanted, [], kept)


def fetch(url: str, wanted: str, kept: Path) -> Path:
    """Copy the dataset at a URL into the store, verified. Raises DatasetError where that cannot be; nothing stays then."""
    system, path = _open(url)
    part = kept / f".part-{wanted}"  # one that a killed program has left is written anew
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        with _telling(url, "cannot be copied"):
            system.get(f"{path}/", f"{part}/", recursive=True)
        return keep(part, wanted, kept, url)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def keep(folder: Path, wanted: str, kept: Path, origin: str) -> Path:
    """Make a copy one of the store's, after its records have been read and hashed. Raises DatasetError for other content."""
    found = _identity(computed_hash(folder), _mean(folder))
    if content_hash(found) != content_hash(wanted):
        raise DatasetError(
            f"{origin}: its copy has the content hash {found[:12]}..., not {wanted[:12]}...; it was changed, or damaged on its "
            "way: check it with multiseg check-dataset"
        )
    if found != wanted:
        raise DatasetError(
            f"{origin}: its copy's mean image, {MEAN}, is another one, or is missing; copy the dataset there again"
        )
    for each in {path.parent for path in folder.rglob("*")}:
        sync(each)
    return folder.rename(kept / wanted)


def _mean(folder: Path) -> bytes | None:
    path = folder / MEAN
    return path.read_bytes() if path.exists() else None


def _identity(records: str, mean: bytes | None) -> str:
    return f"{records}-{'none' if mean is None else hashlib.sha256(mean).hexdigest()[:16]}"


def _open(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise DatasetError(f"{url}: needs fsspec ({error}); pip install 'multiseg[cluster]'") from error
    with _telling(url, "cannot be opened"):
        system, path = url_to_fs(url)
    return system, path.rstrip("/")


@contextmanager
def _telling(url: str, what: str, mend: str = "") -> Iterator[None]:
    """Each file system has errors of its own kinds. Raises DatasetError for them all."""
    try:
        yield
    except Exception as error:
        raise DatasetError(f"{url}: {what} ({type(error).__name__}: {error}){mend}") from error
