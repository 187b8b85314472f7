"""What may be on a disk after a power cut: some of the pending steps, and of files some of the pending sectors."""

from __future__ import annotations

import random
from collections.abc import Iterator

from helpers.power.disk import SECTOR, Disk, File, Step, Tree, Write

_PIECES = 32  # parts of a long write that are decided about one by one


def states(disk: Disk, draw: random.Random, further: int) -> Iterator[Tree]:
    """Yield trees after a cut now: four that are fixed, and ``further`` random ones of each kind.

    Fixed: only what was synchronised; all names but no content that was not synchronised, with the old sizes, and as zeros of
    the new size (as file systems leave it that allocate late); everything. Random: names up to a moment in the order of the
    program, with torn files, as of a journal; any of the names, with torn files.
    """
    yield disk.tree(lambda step: False, lambda file: file.disk)
    yield disk.tree(content=lambda file: file.disk)
    yield disk.tree(content=lambda file: file.disk + bytes(max(0, len(file.data) - len(file.disk))))
    yield disk.tree()
    numbers = sorted({step.number for step in disk.pending()})
    if not numbers:
        return
    for _ in range(further):
        moment = draw.choice(numbers)
        torn = Torn(draw)
        yield disk.tree(lambda step, moment=moment: step.number <= moment, torn.content)  # type: ignore[misc]
        coins: dict[int, bool] = {}
        torn = Torn(draw)

        def chosen(step: Step, coins: dict[int, bool] = coins) -> bool:
            return coins.setdefault(step.number, draw.random() < 0.5)  # one decision for both folders of a rename

        yield disk.tree(chosen, torn.content)


class Torn:
    """Draws contents of files of which some pending sectors are on disk; a file under two names has one content."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._drawn: dict[int, bytes] = {}

    def content(self, file: File) -> bytes:
        """Return a content of a file: all, none, a beginning or any of the pending sectors."""
        if not file.pending:
            return file.disk
        if id(file) not in self._drawn:
            self._drawn[id(file)] = self._torn(file)
        return self._drawn[id(file)]

    def _torn(self, file: File) -> bytes:
        way = self._draw.randrange(5)
        if way < 2:
            return file.data if way else file.disk
        content = bytearray(file.disk)
        writes = file.pending
        if way == 2:  # a beginning: the last write of it is torn
            writes = writes[: self._draw.randrange(len(writes)) + 1]
            for write in writes[:-1]:
                write.apply(content)
            writes = writes[-1:]
        for write in writes:
            self._tear(write, content)
        sizes = (
            len(file.disk),
            len(file.data),
            len(content),
            self._draw.randrange(len(content) + 1) // SECTOR * SECTOR,
        )
        Write(0, self._draw.choice(sizes), None).apply(content)
        return bytes(content)

    def _tear(self, write: Write, content: bytearray) -> None:
        """Apply some of the sectors of a write; of a change of the size all or nothing."""
        if write.data is None:
            if self._draw.random() < 0.5:
                write.apply(content)
            return
        first, end = write.offset, write.offset + len(write.data)
        bounds = list(range(first // SECTOR * SECTOR + SECTOR, end, SECTOR))
        if len(bounds) > _PIECES:
            bounds = sorted(self._draw.sample(bounds, _PIECES))
        for start, stop in zip([first, *bounds], [*bounds, end], strict=True):
            if self._draw.random() < 0.5:
                Write(0, start, write.data[start - first : stop - first]).apply(content)
