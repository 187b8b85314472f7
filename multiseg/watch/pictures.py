"""The pictures of all runs in a page without a server, in a bounded number of bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from multiseg.errors import MultisegError
from multiseg.files import read_bytes
from multiseg.images import check_pixels, open_image
from multiseg.pages.pictures import smallest
from multiseg.run.names import PICTURES

MOST_BYTES = 2_500_000  # of all pictures of a page, which remains below 8 MB with its curves
SIDES = (256, 128, 64, 32)  # longest side in pixels, the first with which they fit
MOST_PIXELS = 1 << 22  # of a file; training writes at most 256x256

Stamp = tuple[Path, int, int]


class Pictures:
    """Embeds pictures of run folders in a page. Encoded pictures are kept until the next page, which changes few of them."""

    def __init__(self) -> None:
        self._contents: dict[Stamp, str] = {}  # checksum of each file: inputs and targets of most runs are the same
        self._encoded: dict[tuple[str, int], str] = {}

    def of(self, folders: Mapping[str, Path]) -> tuple[dict[str, dict[str, int]], list[str]]:
        """Return for each run the index of its pictures by file name, and the pictures as data URIs.

        The last runs have none where all do not fit, even reduced.
        """
        files = {run: list(_files(folder / PICTURES)) for run, folder in folders.items()}
        contents: dict[Stamp, str] = {}
        encoded: dict[tuple[str, int], str] = {}
        for side in SIDES:
            found: dict[str, dict[str, int]] = {}
            images: dict[str, int] = {}
            size = 0
            for run, stamps in files.items():
                checksums = {stamp[0].name: self._checksum(stamp, contents) for stamp in stamps}
                new = dict.fromkeys(checksum for checksum in checksums.values() if checksum not in images)
                for stamp in stamps:
                    self._encode(stamp[0], contents[stamp], side, encoded)
                size += sum(len(encoded[checksum, side]) for checksum in new)
                if size > MOST_BYTES:
                    break
                images |= {checksum: len(images) + at for at, checksum in enumerate(new)}
                found[run] = {name: images[checksum] for name, checksum in checksums.items()}
            if len(found) == len(files) or side == SIDES[-1]:
                self._contents, self._encoded = contents, encoded
                return found, [encoded[checksum, side] for checksum in images]
        raise AssertionError

    def _checksum(self, stamp: Stamp, contents: dict[Stamp, str]) -> str:
        if stamp not in contents:
            contents[stamp] = self._contents.get(stamp) or sha256(_bytes(stamp[0])).hexdigest()
        return contents[stamp]

    def _encode(self, path: Path, checksum: str, side: int, encoded: dict[tuple[str, int], str]) -> None:
        key = checksum, side
        if key not in encoded:
            encoded[key] = self._encoded[key] if key in self._encoded else _encode(path, side)


def _files(folder: Path) -> Iterator[Stamp]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        for entry in entries:
            if entry.name[:1].isdigit() and entry.name.endswith(".png"):
                status = entry.stat()
                yield Path(entry.path), status.st_mtime_ns, status.st_size
    except OSError:
        return


def _bytes(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError:
        return b""


def _encode(path: Path, side: int) -> str:
    """Return a picture as a data URI; an empty one for a file that is no picture, or is being replaced."""
    try:
        data = _bytes(path)
        check_pixels(data, path.name, MOST_PIXELS)
        image, _ = open_image(data, path.name)
        return smallest(image if image.mode in ("L", "RGB") else image.convert("RGB"), side)
    except (MultisegError, OSError, ValueError):
        return "data:,"
