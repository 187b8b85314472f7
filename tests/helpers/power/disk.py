"""A model of a file system that keeps only what was synchronised: of files their content, of folders their entries.

It knows what a program sees, and what is on disk. Between them are pending steps: writes to a file since its last fsync, and
names that were added, replaced or removed in a folder since the last fsync of the folder. A rename is one step, also between
two folders. Nothing else is assumed: an fsync of a file does not make its name durable.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from helpers.power.calls import Change

SECTOR = 512  # bytes that a disk writes whole or not at all


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


Tree = dict[str, bytes | Link | None]  # by relative path: the content of a file, a link, None for a folder


@dataclass(frozen=True)
class Write:
    """A pending step of a file: content at an offset, or without content a new size."""

    number: int
    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
        else:
            content.extend(bytes(max(0, self.offset - len(content))))
            content[self.offset : self.offset + len(self.data)] = self.data


@dataclass(eq=False)
class File:
    """Content as programs see it and on disk."""

    data: bytes = b""
    disk: bytes = b""
    pending: list[Write] = field(default_factory=list)

    def change(self, write: Write) -> None:
        content = bytearray(self.data)
        write.apply(content)
        self.data = bytes(content)
        self.pending.append(write)

    def sync(self) -> None:
        self.disk, self.pending = self.data, []


@dataclass(frozen=True, eq=False)
class Step:
    """A pending step of a folder: a name and what it stands for from then on, None for nothing.

    ``partner`` is the other folder of a rename, which has a step of the same number.
    """

    number: int
    name: str
    node: File | Folder | Link | None
    partner: Folder | None = None


@dataclass(eq=False)
class Folder:
    """Entries as programs see them and on disk."""

    entries: dict[str, File | Folder | Link] = field(default_factory=dict)
    disk: dict[str, File | Folder | Link] = field(default_factory=dict)
    pending: list[Step] = field(default_factory=list)

    def change(self, step: Step) -> None:
        self.pending.append(step)
        put(self.entries, step)

    def sync(self, until: float = float("inf")) -> None:
        """Make the steps up to a number durable, and with a rename what came before it in the other folder."""
        done = [step for step in self.pending if step.number <= until]
        self.pending = [step for step in self.pending if step.number > until]
        for step in done:
            put(self.disk, step)
        for step in done:
            if step.partner is not None:
                step.partner.sync(step.number)


Node = File | Folder | Link


def put(entries: dict[str, Node], step: Step) -> None:
    """Apply a step to the entries of a folder."""
    if step.node is None:
        entries.pop(step.name, None)
    else:
        entries[step.name] = step.node


class Disk:
    """The folder ``root`` as it is now; all of it is on disk. :meth:`apply` follows changes to it."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.mapped: set[str] = set()  # relative paths of files that programs write through memory, which is not seen
        self._numbers = itertools.count(1)
        self._top = _read(Path(self.root))

    def contains(self, path: str) -> bool:
        """Return whether a path is the folder or inside it."""
        return f"{path}/".startswith(f"{self.root}/")

    def apply(self, change: Change) -> None:
        """Follow a change, which may be one that fails, such as a mkdir of a folder that exists."""
        if change.kind == "arrive":
            folder, name = self._place(change.other)
            if self.contains(change.other) and folder is not None:
                self._step(folder, name, File())
                self.apply(Change("write", change.other, data=change.data))
            return
        if not self.contains(change.path):
            return
        if change.kind == "mapped":
            self.mapped.add(os.path.relpath(change.path, self.root))
        elif change.kind in ("write", "truncate", "extend", "sync"):
            self._content(change)
        else:
            parent, name = self._place(change.path)
            if parent is not None:
                getattr(self, f"_{change.kind}")(change, parent, name)

    def _content(self, change: Change) -> None:
        node = self.find(change.path)
        if isinstance(node, Folder) and change.kind == "sync":
            node.sync()
        if not isinstance(node, File):
            return  # removed: its content is of no consequence
        if change.kind == "sync":
            node.sync()
        elif change.kind == "write":
            node.change(Write(next(self._numbers), change.offset, change.data))
            if change.durable:
                node.sync()
        elif change.kind == "truncate" or change.size > len(node.data):
            node.change(Write(next(self._numbers), change.size, None))

    def find(self, path: str) -> Node | None:
        """Return what a path stands for now."""
        node: Node | None = self._top
        for name in Path(path).relative_to(self.root).parts:
            node = node.entries.get(name) if isinstance(node, Folder) else None
        return node

    def _place(self, path: str) -> tuple[Folder | None, str]:
        parent, name = os.path.split(path)
        folder = self._top if parent == self.root else self.find(parent)
        return (folder if isinstance(folder, Folder) else None), name

    def _step(self, folder: Folder, name: str, node: Node | None) -> None:
        folder.change(Step(next(self._numbers), name, node))

    def _create(self, change: Change, parent: Folder, name: str) -> None:
        node = parent.entries.get(name)
        if node is None:
            self._step(parent, name, File())
        elif isinstance(node, File) and not change.exclusive and change.size == 0 and node.data:
            node.change(Write(next(self._numbers), 0, None))

    def _mkdir(self, change: Change, parent: Folder, name: str) -> None:
        if name not in parent.entries:
            self._step(parent, name, Folder())

    def _symlink(self, change: Change, parent: Folder, name: str) -> None:
        if name not in parent.entries:
            self._step(parent, name, Link(change.other))

    def _rmdir(self, change: Change, parent: Folder, name: str) -> None:
        node = parent.entries.get(name)
        if isinstance(node, Folder) and not node.entries:
            self._step(parent, name, None)

    def _unlink(self, change: Change, parent: Folder, name: str) -> None:
        if isinstance(parent.entries.get(name), (File, Link)):
            self._step(parent, name, None)

    def _link(self, change: Change, parent: Folder, name: str) -> None:
        folder, new = self._place(change.other)
        node = parent.entries.get(name)
        if folder is not None and node is not None and new not in folder.entries:
            self._step(folder, new, node)

    def _rename(self, change: Change, parent: Folder, name: str) -> None:
        folder, new = self._place(change.other)
        node = parent.entries.get(name)
        if node is None or folder is None or (change.exclusive and new in folder.entries):
            return
        replaced = folder.entries.get(new)
        if replaced is node or (isinstance(replaced, Folder) and replaced.entries):
            return
        if replaced is not None and isinstance(replaced, Folder) != isinstance(node, Folder):
            return
        number = next(self._numbers)
        folder.change(Step(number, new, node, parent))
        parent.change(Step(number, name, None, folder))

    def tree(
        self,
        chosen: Callable[[Step], bool] = lambda step: True,
        content: Callable[[File], bytes] = lambda file: file.data,
    ) -> Tree:
        """Return what is found after a power cut at which the pending steps that are ``chosen`` had reached the disk.

        Without arguments, what programs see.
        """
        return dict(self._walk(self._top, "", chosen, content))

    @staticmethod
    def _entries(folder: Folder, chosen: Callable[[Step], bool]) -> dict[str, Node]:
        entries = dict(folder.disk)
        for step in folder.pending:
            if chosen(step):
                put(entries, step)
        return entries

    def _walk(
        self, folder: Folder, prefix: str, chosen: Callable[[Step], bool], content: Callable[[File], bytes]
    ) -> Iterator[tuple[str, bytes | Link | None]]:
        for name, node in sorted(self._entries(folder, chosen).items()):
            if isinstance(node, Folder):
                yield prefix + name, None
                yield from self._walk(node, f"{prefix}{name}/", chosen, content)
            else:
                yield prefix + name, content(node) if isinstance(node, File) else node

    def pending(self) -> Iterator[Step | Write]:
        """Yield all pending steps of folders and files that programs see, or find after a cut."""
        waiting: list[Node] = [self._top]
        while waiting:
            node = waiting.pop()
            if isinstance(node, (File, Folder)):
                yield from node.pending
            if isinstance(node, Folder):
                waiting.extend({id(one): one for one in (*node.entries.values(), *node.disk.values())}.values())


def _read(path: Path) -> Folder:
    folder = Folder()
    for entry in path.iterdir():
        mode = entry.lstat().st_mode
        node: Node
        if stat.S_ISLNK(mode):
            node = Link(str(entry.readlink()))
        elif stat.S_ISDIR(mode):
            node = _read(entry)
        else:
            content = entry.read_bytes()
            node = File(content, content)
        folder.entries[entry.name] = folder.disk[entry.name] = node
    return folder


def tree_of(path: Path) -> Tree:
    """Return the tree of a real folder."""
    tree: Tree = {}
    for entry in sorted(path.rglob("*")):
        name = entry.relative_to(path).as_posix()
        tree[name] = (
            Link(str(entry.readlink())) if entry.is_symlink() else None if entry.is_dir() else entry.read_bytes()
        )
    return tree
