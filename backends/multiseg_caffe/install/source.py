"""Verify the checksum of Caffe's source and unpack it into the build folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

from multiseg.errors import InstallError

# files that identify a source of Caffe with pycaffe
MARKS = ("src/caffe/proto/caffe.proto", "python/caffe/_caffe.cpp")
# version control, and the products of an earlier build in the source
LEAVE_OUT = shutil.ignore_patterns(".git", "__pycache__", "*.so", "*_pb2.py")


def checksum(source: Path) -> str:
    """Return the SHA-256 of a tarball, or of a folder's names and contents. Raise InstallError if there is neither."""
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
    """Verify a tarball's checksum. Raise InstallError if it differs."""
    actual = checksum(tarball)
    if actual != sha256.lower():
        raise InstallError(
            f"{tarball}: its SHA-256 is {actual} and should be {sha256.lower()}; the file is damaged, or is a different file"
        )


def unpack(source: Path, folder: Path) -> Path:
    """Copy or unpack a source (folder or tarball) into a new folder; return its top folder.

    Raises InstallError if it is not readable or not a source of Caffe.
    """
    if source.is_dir():
        shutil.copytree(source, folder, ignore=LEAVE_OUT, symlinks=True)
    else:
        try:
            with tarfile.open(source) as archive:
                if hasattr(tarfile, "data_filter"):
                    archive.extractall(folder, filter="data")
                else:  # Python before 3.11.4; the user chose the tarball, or its checksum was verified
                    archive.extractall(folder)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InstallError(f"{source}: not a readable tarball: {error}") from None
    for top in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        if all((top / mark).is_file() for mark in MARKS):
            return top
    raise InstallError(f"{source}: not a source of Caffe with pycaffe, it has no {' and no '.join(MARKS)}")


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder, without those in LEAVE_OUT."""
    files = []
    for parent, folders, names in os.walk(folder):
        left_out = LEAVE_OUT(parent, [*folders, *names])
        folders[:] = [name for name in folders if name not in left_out]
        files += [path for name in names if name not in left_out and (path := Path(parent, name)).is_file()]
    return files
