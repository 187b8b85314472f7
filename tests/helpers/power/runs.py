"""Judge run folders after a power cut: what a resumed training begins with is, to the byte, what the training had then."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import multiseg
from helpers.power.cuts import Cut, Lost, put
from helpers.power.disk import Disk, Tree
from helpers.power.recorder import Recording
from multiseg.errors import MultisegError, RunError
from multiseg.run import snapshots
from multiseg.run.folder import RunFolder
from multiseg.run.reading import read_history

RUN = "runs/a/run"  # where the programs put it
_SNAPSHOT = re.compile(rf"{RUN}/snapshots/(epoch-[^/]+)")


def _part(tree: Tree, prefix: str) -> Tree:
    return {name.removeprefix(prefix): value for name, value in tree.items() if name.startswith(prefix)}


@dataclass
class WholeRun:
    """The parts of a run that never change, as they were first seen whole, and the rows at its end."""

    parts: dict[str, Tree] = field(default_factory=dict)  # by path: each snapshot, model, and job.json
    rows: list[dict[str, object]] = field(default_factory=list)

    @classmethod
    def of(cls, disk: Disk, recording: Recording) -> WholeRun:
        """Follow a recording to its end, and note the parts."""
        whole = cls()
        for change in recording.changes:
            disk.apply(change)
            if change.kind != "rename" and change.kind != "mark":
                continue
            tree = disk.tree()
            for name in tree:
                if (match := _SNAPSHOT.fullmatch(name)) and name not in whole.parts:
                    whole.parts[match[0]] = _part(tree, f"{name}/")
        whole.parts[f"{RUN}/model"] = _part(tree, f"{RUN}/model/")
        whole.parts[f"{RUN}/job.json"] = {"": tree[f"{RUN}/job.json"]}
        whole.rows = read_history(Path(disk.root, f"{RUN}/history.csv"))
        return whole

    def check(self, cut: Cut, folder: Path) -> tuple[str, int]:
        """Begin to resume the run in a state; return the result in a word, and the iterations that it has then.

        Raises Lost if a snapshot that was announced is not there, or what is there is not what the training wrote.
        """
        announced = (
            {"": 0, "end": 6}.get(cut.mark) if not cut.mark.startswith("snapshot ") else int(cut.mark.split()[1])
        )
        assert announced is not None
        if RUN not in cut.tree:
            if announced:
                raise Lost("the run folder is not there")
            return "no run", 0
        put(cut.tree, folder)
        try:
            return self._begun(cut, folder, announced)
        except MultisegError as error:
            if announced:  # a run with a snapshot can be resumed
                raise Lost(f"refused: {error}") from error
            raise

    def _begun(self, cut: Cut, folder: Path, announced: int) -> tuple[str, int]:
        run = RunFolder.resume(folder / RUN)
        with run.locked():
            if not run.born:
                if announced:
                    raise Lost("job.json is not there")
                return "not begun", 0
            position = run.begin()
        self._compare(folder, run, position.iteration)
        if position.iteration < announced:
            raise Lost(f"it is at iteration {position.iteration}, but {announced} were announced")
        opened = multiseg.Run.open(folder / RUN)
        if position.rows and opened.history != self.rows[: position.rows]:
            raise Lost("the history has other rows")
        if cut.mark == "end" and opened.summary["status"] != "finished":
            raise Lost("it is not finished")
        return f"at step {position.iteration}", position.iteration

    def _compare(self, folder: Path, run: RunFolder, iteration: int) -> None:
        there: Tree = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            there[name] = None if path.is_dir() else path.read_bytes()
        for name in (f"{RUN}/model", *(name for name in there if _SNAPSHOT.fullmatch(name))):
            if _part(there, f"{name}/") != self.parts[name]:
                if name == f"{RUN}/model" or name.endswith(snapshots.snapshots(run.path)[-1].path.name):
                    raise Lost(f"{name} is not as it was written")
                with suppress(RunError):  # a snapshot that was being removed
                    snapshots.Snapshot(0, folder / name).verify()
                    raise Lost(f"{name} is not as it was written, and counts as whole")
        if there[f"{RUN}/job.json"] != self.parts[f"{RUN}/job.json"][""]:
            raise Lost("job.json is not as it was written")
        if iteration and run.rows != self.rows[: len(run.rows)]:
            raise Lost("the rows are not those of the training")


def checker(whole: WholeRun, examples: dict[str, Cut]) -> Callable[[Cut, Path], str]:
    """Return a check of states of a run; of each result the first state is kept in ``examples``."""

    def check(cut: Cut, folder: Path) -> str:
        result, _ = whole.check(cut, folder)
        examples.setdefault(result, cut)
        return result

    return check
