"""Decode system calls into changes of files, by the state of the calling thread: its memory, descriptors and working folder."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace

from helpers.power.notify import Call

_HERE = 2**32 - 100  # AT_FDCWD, as the lower half of an argument
_SYNCHRONOUS = os.O_DSYNC | os.O_SYNC
_NO_REPLACE, _EXCHANGE = 1, 2  # flags of renameat2
_KEEP_SIZE = 1  # flag of fallocate


class NotFollowed(Exception):
    """A program changed a file in a way that the recorder cannot follow."""


@dataclass(frozen=True)
class Change:
    """One change: its ``kind``, the absolute path and, by kind, the other path, the place and content.

    Kinds: create, truncate, write, extend, sync, mkdir, rmdir, unlink, rename, link, symlink, mapped; arrive: a rename from
    elsewhere, whose ``data`` is the content; mark: see helpers.power.recorder.mark. ``exclusive``: fails if the path exists;
    ``durable``: on disk when the call returns.
    """

    kind: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""
    size: int = 0
    exclusive: bool = False
    durable: bool = False


class Thread:
    """The calling thread, as /proc shows it."""

    def __init__(self, number: int) -> None:
        self.folder = f"/proc/{number}"

    def memory(self, address: int, size: int) -> bytes:
        """Return bytes of the thread's memory."""
        descriptor = os.open(f"{self.folder}/mem", os.O_RDONLY)
        try:
            return os.pread(descriptor, size, address)
        finally:
            os.close(descriptor)

    def text(self, address: int) -> str:
        """Return the file name at an address."""
        found = b""
        while b"\0" not in found:
            page = 4096 - (address + len(found)) % 4096  # the next page may not exist
            found += self.memory(address + len(found), page)
        return os.fsdecode(found.partition(b"\0")[0])

    def vectors(self, address: int, count: int) -> bytes:
        """Return the bytes that an array of struct iovec refers to."""
        pairs = struct.iter_unpack("=QQ", self.memory(address, 16 * count))
        return b"".join(self.memory(start, size) for start, size in pairs if size)

    def opened(self, descriptor: int) -> str:
        """Return the path of an open file as it is now; that of a removed file ends in `` (deleted)``."""
        return os.readlink(f"{self.folder}/fd/{descriptor & 0x7FFFFFFF}")  # noqa: PTH115

    def position(self, descriptor: int) -> tuple[int, int]:
        """Return the position in an open file, and the flags with which it was opened."""
        with open(f"{self.folder}/fdinfo/{descriptor}", encoding="ascii") as file:  # noqa: PTH123
            values = dict(line.split(":\t", 1) for line in file if ":\t" in line)
        return int(values["pos"]), int(values["flags"], 8)

    def resolved(self, name: str, folder: int = _HERE, follow: bool = False) -> str:
        """Return the absolute path of a name; links in its folder are followed, with ``follow`` also the last one."""
        here = f"{self.folder}/cwd" if folder & 0xFFFFFFFF == _HERE else f"{self.folder}/fd/{folder}"
        path = os.path.join(os.readlink(here), name) if not name.startswith("/") else name  # noqa: PTH115, PTH118
        if follow:
            return os.path.realpath(path)
        parent, last = os.path.split(path.rstrip("/"))
        return f"{os.path.realpath(parent)}/{last}"


def change(call: Call) -> Change | None:
    """Return the change that a call is about to make; None if it changes no file. Raises NotFollowed."""
    thread, arguments = Thread(call.thread), call.arguments
    if call.name in ("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range"):
        return _written(call, thread)
    if call.name in ("fsync", "fdatasync"):
        return Change("sync", thread.opened(arguments[0]))
    if call.name == "ftruncate":
        return Change("truncate", thread.opened(arguments[0]), size=arguments[1])
    if call.name == "fallocate":
        if arguments[1] == _KEEP_SIZE:
            return None
        if arguments[1]:
            raise NotFollowed(f"fallocate with mode {arguments[1]}")
        return Change("extend", thread.opened(arguments[0]), size=arguments[2] + arguments[3])
    if call.name == "mmap":
        return Change("mapped", thread.opened(arguments[4]))
    return _named(call, thread)


def _written(call: Call, thread: Thread) -> Change | None:
    arguments = call.arguments
    descriptor = arguments[2 if call.name == "copy_file_range" else 0]
    path = thread.opened(descriptor)
    if not path.startswith("/"):  # a socket or a pipe
        return None
    if path == os.devnull and call.name == "write":
        return Change("mark", path, data=thread.memory(arguments[1], arguments[2]))
    if path.startswith(("/dev/", "/proc/")):
        return None
    change = Change("write", path)
    position, flags = thread.position(descriptor)
    if flags & os.O_APPEND:
        position = os.stat(f"{thread.folder}/fd/{descriptor}").st_size  # noqa: PTH116
    change = replace(change, offset=position, durable=bool(flags & _SYNCHRONOUS))
    if call.name == "write":
        return replace(change, data=thread.memory(arguments[1], arguments[2]))
    if call.name == "writev":
        return replace(change, data=thread.vectors(arguments[1], arguments[2]))
    if call.name == "pwrite64":
        return replace(change, offset=arguments[3], data=thread.memory(arguments[1], arguments[2]))
    if call.name in ("pwritev", "pwritev2"):
        at = arguments[3]
        return replace(
            change, offset=position if at == 2**64 - 1 else at, data=thread.vectors(arguments[1], arguments[2])
        )
    source, at, size = (arguments[1], arguments[2], arguments[3]) if call.name == "sendfile" else (
        arguments[0], arguments[1], arguments[4])  # fmt: skip
    if call.name == "copy_file_range" and arguments[3]:
        change = replace(change, offset=struct.unpack("=q", thread.memory(arguments[3], 8))[0])
    start = struct.unpack("=q", thread.memory(at, 8))[0] if at else thread.position(source)[0]
    with open(f"{thread.folder}/fd/{source}", "rb") as file:  # noqa: PTH123
        return replace(change, data=os.pread(file.fileno(), size, start))


def _named(call: Call, thread: Thread) -> Change:
    arguments, name = call.arguments, call.name
    if name in ("open", "openat", "creat"):
        folder, at = (arguments[0], 1) if name == "openat" else (_HERE, 0)
        flags = os.O_CREAT | os.O_TRUNC if name == "creat" else arguments[at + 1]
        path = thread.resolved(thread.text(arguments[at]), folder, follow=not flags & (os.O_NOFOLLOW | os.O_EXCL))
        kind = "create" if flags & os.O_CREAT else "truncate"
        # with O_TRUNC a file that exists becomes empty: size 0; without, it stays as it is: -1
        size = 0 if flags & os.O_TRUNC else -1
        return Change(kind, path, size=size, exclusive=bool(flags & os.O_EXCL))
    if name == "truncate":
        return Change("truncate", thread.resolved(thread.text(arguments[0]), follow=True), size=arguments[1])
    if name in ("mkdir", "rmdir", "unlink"):
        return Change(name, thread.resolved(thread.text(arguments[0])))
    if name in ("mkdirat", "unlinkat"):
        kind = "mkdir" if name == "mkdirat" else "rmdir" if arguments[2] else "unlink"
        return Change(kind, thread.resolved(thread.text(arguments[1]), arguments[0]))
    if name in ("symlink", "symlinkat"):
        target, *where = arguments[:3]
        path = thread.text(where[-1] if name == "symlinkat" else where[0])
        return Change("symlink", thread.resolved(path, where[0] if name == "symlinkat" else _HERE), thread.text(target))
    at = name in ("renameat", "renameat2", "linkat")
    old = thread.resolved(thread.text(arguments[1 if at else 0]), arguments[0] if at else _HERE)
    new = thread.resolved(thread.text(arguments[3 if at else 1]), arguments[2] if at else _HERE)
    flags = arguments[4] if name == "renameat2" else 0
    if flags & ~_NO_REPLACE:
        raise NotFollowed(f"renameat2 with flags {flags}")
    return Change("rename" if name.startswith("rename") else "link", old, new, exclusive=bool(flags))
