"""Caffe's source: its checksum, and its unpacking into the folder it is built in."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

from multiseg.errors import InstallError

# what tells a source of Caffe with its Python part
MARKS = ("src/caffe/proto/caffe.proto", "python/caffe/_caffe.cpp")
# version control, and what an earlier build left in the source
LEAVE_OUT = shutil.ignore_patterns(".git", "__pycache__", "*.so", "*_pb2.py")


def checksum(source: Path) -> str:
    """The SHA-256 of a tarball, or of a folder's names and contents. Raises InstallError where there is neither."""
    digest = hashlib.sha256()
    if source.is_dir():
        for file in sorted(_files(source)):
            digest.update(f"{file.relative_to(source)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    elif source.is_file():
        with source.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    else:
        raise InstallError(f"{source}: no such tarball or folder of Caffe's source")
    return digest.hexdigest()


def verify(tarball: Path, sha256: str) -> None:
    """Compare a tarball's checksum. Raises InstallError where it is another."""
    found = checksum(tarball)
    if found != sha256.lower():
        raise InstallError(
            f"{tarball}: its SHA-256 is {found} and should be {sha256.lower()}; the file is damaged or another one"
        )


def unpack(source: Path, folder: Path) -> Path:
    """Copy a source, tarball or folder, into a new folder; return where its top is.

    Raises InstallError where it is not readable or not a source of Caffe.
    """
    if source.is_dir():
        shutil.copytree(source, folder, ignore=LEAVE_OUT, symlinks=True)
    else:
        try:
            with tarfile.open(source) as archive:
                if hasattr(tarfile, "data_filter"):
                    archive.extractall(folder, filter="data")
                else:  # Python before 3.11.4; the user chose the tarball, or its checksum was compared
                    archive.extractall(folder)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InstallError(f"{source}: not a readable tarball: {error}") from None
    for top in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        if all((top / mark).is_file() for mark in MARKS):
            return top
    raise InstallError(f"{source}: not a source of Caffe with pycaffe, it has no {' and no '.join(MARKS)}")


def _files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        left_out = LEAVE_OUT(parent, [*folders, *names])
        folders[:] = [name for name in folders if name not in left_out]
        found += [path for name in names if name not in left_out and (path := Path(parent, name)).is_file()]
    return found
