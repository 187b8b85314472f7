"""Stop a process, and all processes that it starts, at chosen system calls: seccomp's user notification (Linux 5.5, x86-64).

It needs neither privileges nor a compiler, and sees Python, C and C++ alike. Layouts and numbers are those of linux/seccomp.h,
linux/filter.h, linux/audit.h and asm/unistd_64.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

NUMBERS = {
    "write": 1, "open": 2, "mmap": 9, "pwrite64": 18, "writev": 20, "sendfile": 40, "fsync": 74, "fdatasync": 75,
    "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87,
    "symlink": 88, "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
    "fallocate": 285, "pwritev": 296, "renameat2": 316, "copy_file_range": 326, "pwritev2": 328,
}  # fmt: skip
# Without these a program takes a way that the recorder can follow: what fails, and how
_REFUSED = {"io_uring_setup": (425, errno.ENOSYS), "openat2": (437, errno.ENOSYS)}
_IOCTL, _FICLONE = 16, 0x40049409

_X86_64 = 0xC000003E
_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # instructions of the filter
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_CREATES = os.O_CREAT | os.O_TRUNC
_TMPFILE = 0o20000000  # O_TMPFILE without O_DIRECTORY

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION = struct.Struct("=QII iIQ6Q")
_ANSWER = struct.Struct("=Qq iI")
_CONTINUE = 1
_SILENCE = 300  # seconds after which a program hangs

_Step = tuple[int, int, int, int]


@dataclass(frozen=True)
class Call:
    """A system call that waits: its number and arguments, and the thread that makes it."""

    id: int
    thread: int
    name: str
    arguments: tuple[int, ...]


def _argument(index: int) -> _Step:
    return (_LOAD, 0, 0, 16 + 8 * index)  # the lower half


def _give(action: int) -> _Step:
    return (_RETURN, 0, 0, action)


def _filter() -> bytes:
    """Return the program that decides about each system call; calls that open files for reading only pass."""
    opens = [
        (_ANY_BIT, 0, 1, _TMPFILE), _give(_ERRNO | errno.EOPNOTSUPP),
        (_ANY_BIT, 0, 1, _CREATES), _give(_NOTIFY), _give(_ALLOW),
    ]  # fmt: skip
    special = {
        "open": [_argument(1), *opens],
        "openat": [_argument(2), *opens],
        "mmap": [  # shared, writable, of a file
            _argument(2), (_ANY_BIT, 1, 0, 2), _give(_ALLOW),
            _argument(3), (_ANY_BIT, 0, 1, 0x20), _give(_ALLOW), (_ANY_BIT, 0, 1, 1), _give(_NOTIFY), _give(_ALLOW),
        ],
    }  # fmt: skip
    blocks = {number: special.get(name, [_give(_NOTIFY)]) for name, number in NUMBERS.items()}
    blocks |= {number: [_give(_ERRNO | code)] for number, code in _REFUSED.values()}
    blocks[_IOCTL] = [_argument(1), (_EQUAL, 0, 1, _FICLONE), _give(_ERRNO | errno.EOPNOTSUPP), _give(_ALLOW)]
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _X86_64), _give(_ALLOW), (_LOAD, 0, 0, _NUMBER)]
    for number, block in blocks.items():
        steps += [(_EQUAL, 0, len(block), number), *block]
    return b"".join(struct.pack("=HBBI", *step) for step in (*steps, _give(_ALLOW)))


def install(connection: socket.socket) -> None:
    """Let this process and those that it starts wait at the calls from now on; send the listener to the supervisor.

    Must be called before the process has threads. Raises OSError if the kernel cannot do it.
    """
    if platform.machine() != "x86_64":
        raise OSError(errno.ENOSYS, f"system calls are known for x86_64, not for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    program = _filter()
    memory = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(memory))
    no_new_privileges, seccomp, set_filter, new_listener = 38, 317, 1, 8
    if libc.prctl(no_new_privileges, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    listener = libc.syscall(seccomp, set_filter, new_listener, ctypes.create_string_buffer(header, len(header)))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    socket.send_fds(connection, [b"!"], [listener])
    os.close(listener)
    connection.recv(1)  # the supervisor is ready


class Listener:
    """The supervisor's side: receives the calls and answers them. Every call waits until it is answered."""

    def __init__(self, connection: socket.socket) -> None:
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        if not descriptors:
            raise OSError(errno.ENOSYS, "the program ended before it could be observed")
        self._descriptor = descriptors[0]
        self._names = {number: name for name, number in NUMBERS.items()}
        connection.send(b"!")

    def calls(self) -> Iterator[Call]:
        """Yield the calls of all processes until the last one ends."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while True:
            events = poll.poll(1000 * _SILENCE)
            if not events:
                raise TimeoutError(f"no system call for {_SILENCE} seconds, and the program has not ended")
            if events[0][1] & select.POLLHUP and not events[0][1] & select.POLLIN:
                return
            message = bytearray(_NOTIFICATION.size)
            try:
                fcntl.ioctl(self._descriptor, _RECEIVE, message)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # the thread has ended, or was interrupted
                    continue
                raise
            identity, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack(message)
            yield Call(identity, thread, self._names[number], tuple(arguments))

    def proceed(self, call: Call) -> bool:
        """Let the kernel execute a call; return False if its thread has gone, or makes the call again after a signal."""
        return self._answer(call.id, 0, 0, _CONTINUE)

    def give(self, call: Call, value: int) -> bool:
        """Return ``value`` from a call without executing it."""
        return self._answer(call.id, value, 0, 0)

    def fail(self, call: Call, code: int) -> bool:
        """Let a call fail with an error number without executing it."""
        return self._answer(call.id, 0, -code, 0)

    def _answer(self, identity: int, value: int, error: int, flags: int) -> bool:
        try:
            fcntl.ioctl(self._descriptor, _SEND, _ANSWER.pack(identity, value, error, flags))
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        """Stop observing; calls of processes that still run fail from now on."""
        os.close(self._descriptor)
