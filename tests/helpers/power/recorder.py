"""Run functions in processes of their own, and record or fail what they and their children do to files below a folder."""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from helpers.power.calls import Change, NotFollowed, change
from helpers.power.notify import Call, Listener, install

SHORT = -1  # in place of an error number: half of the bytes are written
_PROGRAM = "from helpers.power.recorder import serve; serve()"

Decide = Callable[[Change], int]


@dataclass
class Recording:
    """The changes that a function made, in order, and its result: a value, or the type and the message of its exception."""

    changes: list[Change]
    value: Any = None
    error: str | None = None
    message: str = ""


class Recorder:
    """Runs functions, named ``module:function``, in forked processes of one program that has imported ``modules``."""

    def __init__(self, root: Path, modules: list[str], environment: Mapping[str, str] | None = None) -> None:
        self.root = os.path.realpath(root)
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | dict(environment or {}),
            )

    def run(self, function: str, decide: Decide = lambda change: 0, **arguments: Any) -> Recording:
        """Run a function with arguments for JSON; ``decide`` returns an error number or SHORT for a change that is to fail.

        What cannot fail so, a mark or the writing of one byte, is made as if it had returned 0.
        """
        self._ours.sendall(json.dumps([function, arguments]).encode() + b"\n")
        recording = Recording([])
        listener = Listener(self._ours)
        try:
            for call in listener.calls():
                made = self._change(call)
                if made is None:
                    listener.proceed(call)
                    continue
                code = decide(made)
                if code == SHORT and (half := self._shortened(listener, call, made)) is not None:
                    recording.changes.append(half)
                elif code > 0 and made.kind != "mark":
                    listener.fail(call, code)
                elif listener.proceed(call):
                    recording.changes.append(made)
        finally:
            listener.close()
        answer = b""
        while not answer.endswith(b"\n"):
            part = self._ours.recv(1 << 16)
            if not part:
                raise NotFollowed(f"the program that runs {function} has ended")
            answer += part
        recording.value, recording.error, recording.message = json.loads(answer)
        return recording

    def _change(self, call: Call) -> Change | None:
        try:
            made = change(call)
        except (FileNotFoundError, ProcessLookupError):  # a descriptor that is not open, or a thread that has ended
            return None
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.EIO, errno.EFAULT):
                return None
            raise
        if made is None or made.kind == "mark":
            return made
        inside = [f"{path}/".startswith(f"{self.root}/") for path in (made.path, made.other)]
        if made.kind == "rename" and inside == [False, True]:  # what arrives is a file that was not synchronised
            return replace(made, kind="arrive", data=Path(made.path).read_bytes())
        if made.kind in ("rename", "link") and any(inside) and not all(inside):
            raise NotFollowed(f"{made.kind} of {made.path} to {made.other}")
        return made if any(inside) and not made.path.endswith(" (deleted)") else None

    def _shortened(self, listener: Listener, call: Call, made: Change) -> Change | None:
        """Write half of the bytes in the place of the program, and return what was written; None if the call cannot be short."""
        if call.name not in ("write", "pwrite64") or len(made.data) < 2 or made.kind == "mark":
            return None
        half = Change("write", made.path, "", made.offset, made.data[: len(made.data) // 2], durable=made.durable)
        descriptor = _copied(call.thread, call.arguments[0])
        try:
            written = (
                os.write(descriptor, half.data)
                if call.name == "write"
                else os.pwrite(descriptor, half.data, half.offset)
            )
        finally:
            os.close(descriptor)
        assert written == len(half.data)
        listener.give(call, written)
        return half

    def close(self) -> None:
        """End the program."""
        self._ours.close()
        self._process.wait(timeout=30)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()


def _copied(thread: int, descriptor: int) -> int:
    """Return a descriptor of our own for the open file of another process, with the position that they share."""
    status = Path(f"/proc/{thread}/status").read_text(encoding="ascii")
    group = next(line.split()[1] for line in status.splitlines() if line.startswith("Tgid:"))
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd_getfd = 438
    process = os.pidfd_open(int(group))
    try:
        copy: int = libc.syscall(pidfd_getfd, process, descriptor, 0)
    finally:
        os.close(process)
    if copy < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return copy


def mark(name: str) -> None:
    """Note in the recording that the program has come to a place. Called by the functions that are recorded."""
    with open(os.devnull, "wb", buffering=0) as file:  # noqa: PTH123
        file.write(f"mark {name}".encode())


def serve() -> None:
    """Run functions by request in forked children, which install the filter; the program of Recorder."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    requests = connection.makefile("rb")
    for line in requests:
        function, arguments = json.loads(line)
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(readable)
            result: tuple[Any, str | None, str]
            try:
                install(connection)
                module, _, name = function.partition(":")
                result = (getattr(importlib.import_module(module), name)(**arguments), None, "")
            except BaseException as error:
                known = any(base.__name__ == "MultisegError" for base in type(error).__mro__)
                text = str(error) if known or isinstance(error, OSError) else traceback.format_exc()
                result = (known, type(error).__name__, text)
            os.write(writable, json.dumps(result).encode())
            sys.stdout.flush()
            os._exit(0)
        os.close(writable)
        with os.fdopen(readable, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        connection.sendall((answer or b'[null, "Crash", "the process ended without an answer"]') + b"\n")
