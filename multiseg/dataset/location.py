"""Finding a dataset by its content: in a folder that is seen here, in the store of copies, or at a URL to copy it from.

A store holds verified copies, each in a folder named by its content hash. URLs are what fsspec takes (``s3://``, ``https://``,
``file://``, ...), each with the package that it needs for that.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multiseg.dataset.description import FILE, computed_hash, parse_description, read_description
from multiseg.errors import DatasetError

POLL_SECONDS = 0.2


def is_url(place: object) -> bool:
    """Whether it names a place through fsspec, and not a folder."""
    return isinstance(place, str) and "://" in place


def store() -> Path:
    """Where copies for programs of this user are kept: ``multiseg/datasets`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multiseg" / "datasets"


def hash_at(url: str) -> str:
    """The content hash that the dataset at a URL says it has. Raises DatasetError where there is no dataset of ours."""
    system, path = _open(url)
    name = f"{path.rstrip('/')}/{FILE}"
    try:
        description = parse_description(system.cat_file(name), f"{url}/{FILE}")
    except OSError as error:
        raise DatasetError(
            f"{url}: has no {FILE} that can be read ({error}); create the dataset with multiseg"
        ) from error
    found = description.get("content_hash")
    if not isinstance(found, str):
        raise DatasetError(f"{url}/{FILE}: has no content_hash; create the dataset again")
    return found


def local(url: str) -> Path:
    """The folder of the copy of the dataset at a URL, which is made where there is none yet."""
    content_hash = hash_at(url)
    with reserved(store(), content_hash) as found:
        return found or fetch(url, content_hash, store())


def find(content_hash: str, places: list[str], kept: Path) -> Path | None:
    """A folder with that content: the store's copy, or one of ``places`` that is seen here."""
    copy = kept / content_hash
    if copy.is_dir():
        return copy
    for place in places:
        folder = Path(place.removeprefix("file://"))
        try:
            if not is_url(str(folder)) and folder.is_dir() and _said_hash(folder) == content_hash:
                return folder
        except DatasetError:  # another one lies there
            continue
    return None


@contextmanager
def reserved(kept: Path, content_hash: str, waiting: Callable[[], None] = lambda: None) -> Iterator[Path | None]:
    """Within it nobody else makes a copy of that content in the store; the copy, where somebody has made it before.

    ``waiting`` is called while somebody is at it, and may raise to end the wait.
    """
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / f".{content_hash}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(POLL_SECONDS)
        yield find(content_hash, [], kept)


def fetch(url: str, content_hash: str, kept: Path) -> Path:
    """Copy the dataset at a URL into the store, verified. Raises DatasetError where that cannot be; nothing stays then."""
    system, path = _open(url)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=kept))
    try:
        system.get(path.rstrip("/") + "/", f"{part}/", recursive=True)
        return keep(part, content_hash, kept, url)
    except OSError as error:
        raise DatasetError(f"{url}: cannot be copied: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def keep(folder: Path, content_hash: str, kept: Path, origin: str) -> Path:
    """Make a copy one of the store's, after its records have been read and hashed. Raises DatasetError for other content."""
    found = computed_hash(folder)
    if found != content_hash:
        raise DatasetError(
            f"{origin}: its copy has the content hash {found[:12]}..., not {content_hash[:12]}...; it was changed, or damaged on "
            "its way: check it with multiseg check-dataset"
        )
    return folder.rename(kept / content_hash)


def _said_hash(folder: Path) -> str:
    said = (read_description(folder) or {}).get("content_hash")
    return said if isinstance(said, str) else computed_hash(folder)


def _open(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise DatasetError(f"{url}: needs fsspec ({error}); pip install 'multiseg[cluster]'") from error
    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # a protocol's own package, or no protocol at all
        raise DatasetError(f"{url}: cannot be opened: {error}") from error
    return system, path
