"""Cut the power after every change of a recording, and judge what is found then."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from helpers.power.disk import Disk, Link, Tree, tree_of
from helpers.power.recorder import Recording
from helpers.power.states import states
from multiseg.errors import MultisegError


@dataclass(frozen=True)
class Cut:
    """A state after a power cut: the last mark before the cut, and what is on the disk."""

    mark: str
    tree: Tree

    @property
    def key(self) -> int:
        """Equal for states that differ in nothing but pictures and the position that are shown while a training runs."""
        shown = re.compile(r"(^|/)(pictures/|\.progress\.json|\.\.progress|worker\.log|\.request)")
        return hash((self.mark, frozenset(pair for pair in self.tree.items() if not shown.search(pair[0]))))


@dataclass
class Tally:
    """Counts of cuts by their result; ``lost`` describes those after which something was lost or silently wrong."""

    cuts: int = 0
    distinct: int = 0
    results: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)  # messages, with # for numbers

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.results.items()))
        return f"{self.cuts} cuts, {self.distinct} distinct states: {counts or 'none'}"


class Lost(Exception):
    """Something that must be there is not, or is something else."""


def follow(disk: Disk, recording: Recording) -> None:
    """Apply a recording to the model, which must then be what is really there."""
    for change in recording.changes:
        disk.apply(change)
    seen, real = disk.tree(), tree_of(Path(disk.root))
    differing = [name for name in sorted({*seen, *real}) if seen.get(name, 0) != real.get(name, 0)]
    unseen = [name for name in differing if name not in disk.mapped]
    assert not unseen, f"the recorder has not seen how these changed: {unseen}"


def cuts(disk: Disk, recording: Recording, seed: int, further: int) -> Iterator[Cut]:
    """Yield the states after a cut before, between and after the changes of a recording."""
    draw = random.Random(seed)
    mark = ""
    for change in recording.changes:
        for tree in states(disk, draw, further):
            yield Cut(mark, tree)
        if change.kind == "mark":
            mark = change.data.decode().removeprefix("mark ")
        disk.apply(change)
    for tree in states(disk, draw, further):
        yield Cut(mark, tree)


def judge(found: Iterator[Cut], check: Callable[[Cut, Path], str], scratch: Path) -> Tally:
    """Check every state once, and count.

    ``check`` returns the result in a word; it raises Lost. It may write the state to the folder ``scratch`` with :func:`put`. A
    MultisegError that names a file there is the result "refused"; any other exception is a loss.
    """
    tally = Tally()
    known: dict[int, str] = {}
    for cut in found:
        tally.cuts += 1
        if cut.key not in known:
            known[cut.key] = _result(cut, check, scratch, tally)
        tally.results[known[cut.key]] += 1
    tally.distinct = len(known)
    return tally


def _result(cut: Cut, check: Callable[[Cut, Path], str], scratch: Path, tally: Tally) -> str:
    try:
        return check(cut, scratch)
    except MultisegError as error:
        if str(scratch) in str(error):
            tally.refusals[re.sub(r"[0-9]+", "#", str(error).replace(str(scratch), ""))] += 1
            return "refused"
        reason = f"{type(error).__name__} names no file: {error}"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    tally.lost.append(f"after mark {cut.mark!r}: {reason}; there are {_described(cut.tree)}")
    return "lost"


def _described(tree: Tree) -> str:
    return ", ".join(f"{name} ({len(value)})" if isinstance(value, bytes) else name for name, value in tree.items())


def put(tree: Tree, folder: Path) -> None:
    """Make a folder have the content of a tree, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, value in tree.items():
        path = folder / name
        if value is None:
            path.mkdir()
        elif isinstance(value, Link):
            path.symlink_to(value.target)
        else:
            path.write_bytes(value)


def outputs(tree: Tree, names: str) -> Tree:
    """Return the files and folders whose paths match a regular expression, and what is in them."""
    return {name: value for name, value in tree.items() if re.match(rf"({names})($|/)", name)}


def versions(disk: Disk, recording: Recording, names: str) -> list[Tree]:
    """Return the outputs at each mark, the first before the recording; the model is at the end of it afterwards."""
    found = [outputs(disk.tree(), names)]
    for change in recording.changes:
        disk.apply(change)
        if change.kind == "mark":
            found.append(outputs(disk.tree(), names))
    return found


def one_of(known: list[Tree], names: str, read: Callable[[Path], str] | None = None) -> Callable[[Cut, Path], str]:
    """Return a check that the last version that was complete at the cut, or the next one, is there whole.

    ``read`` reads an output of several files that is neither; it must raise a MultisegError, or return the result in a word.
    """

    def check(cut: Cut, folder: Path) -> str:
        complete = int(cut.mark or 0)
        there = outputs(cut.tree, names)
        for number in range(complete, len(known)):
            if there == known[number]:
                return "new" if number > complete else "old"
        if read is not None and complete < len(known) - 1:
            put(cut.tree, folder)
            return read(folder)
        raise Lost(f"it is neither version {complete} nor a later one")

    return check
