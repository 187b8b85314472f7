"""One row of the table of readers, and the search for inputs that end in anything but a value or an error of multiseg."""

from __future__ import annotations

import random
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.fuzzing.mutations import mutated
from multiseg.errors import MultisegError

SECONDS = 10  # that one input may take
BUSY = 12  # times that, at a second try: the first may have waited for other programs of the machine
LONGEST_MESSAGE = 5000  # characters of an error's message


@dataclass(frozen=True)
class Reader:
    """A reader, ``read``, of the file ``file`` in a folder of samples, which it takes the path of.

    ``weight`` is its share of the inputs, less for slow readers.
    """

    name: str
    file: str
    read: Callable[[Path], Any]
    weight: float = 1.0


@dataclass(frozen=True)
class Finding:
    """An input that a reader does not answer with a value or an error of multiseg."""

    reader: str
    problem: str
    place: str
    seed: str
    input: bytes


class TooSlow(BaseException):
    """An input takes longer than SECONDS. Not an Exception, so that readers do not catch it."""


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(
    reader: Reader, samples: Path, count: int, seed: int, others: Sequence[bytes], note: Path
) -> Iterator[Finding | str]:
    """Read ``count`` changed files; yield "value" or "error" for each input, or a finding.

    The unchanged file must be read. ``note`` is where an input is kept while it is read, for the case that the process dies.
    """
    path = samples / reader.file
    whole = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader.read(path)
        try:
            for number in range(count):
                word = f"{seed}/{reader.name}/{number}"
                data = mutated(whole, random.Random(word), others)
                path.write_bytes(data)
                shutil.copyfile(path, note)
                yield outcome(reader, path, word, data)
        finally:
            path.write_bytes(whole)


def outcome(reader: Reader, path: Path, seed: str, data: bytes, seconds: float = SECONDS) -> Finding | str:
    """Read one input; return "value", "error" or a finding."""
    started = time.process_time()
    try:
        with _bounded(seconds):
            reader.read(path)
    except MultisegError as error:
        if len(str(error)) > LONGEST_MESSAGE:
            return Finding(reader.name, f"a message of {len(str(error))} characters", str(error)[:200], seed, data)
        return "error"
    except TooSlow as error:
        if seconds == SECONDS and time.process_time() - started < SECONDS / 2:
            return outcome(reader, path, seed, data, BUSY * SECONDS)
        return Finding(reader.name, "too slow", _place(error), seed, data)
    except Exception as error:
        return Finding(reader.name, f"{type(error).__name__}: {str(error)[:200]}", _place(error), seed, data)
    if time.process_time() - started > SECONDS:
        return Finding(reader.name, "too slow, in a library", "", seed, data)
    return "value"


def _place(error: BaseException) -> str:
    """The innermost lines of multiseg's own code and of all code in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/multiseg" in frame.filename and "/helpers/" not in frame.filename]
    chosen = dict.fromkeys(
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in [*own[-3:], frames[-1]]
    )
    return " > ".join(chosen)
