"""Any system call that changes a file fails: an error names what cannot be written, or the result is complete.

The n-th call of a program fails with EIO, ENOSPC or EINTR, or writes half of the bytes: in every run for some n, and nightly for
every n. A program runs many times in one process, each time in a folder of its own.
"""

from __future__ import annotations

import errno
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import multiseg
from helpers.linear_net import write_model
from helpers.power import programs
from helpers.power.bench import OUTPUTS, Programs, Recorded
from helpers.power.calls import Change
from helpers.power.cuts import outputs, versions
from helpers.power.disk import Disk, Tree, tree_of
from helpers.power.recorder import SHORT
from helpers.power.runs import RUN

CODES = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EINTR": errno.EINTR, "half": SHORT}
EACH_RUN_AND_NIGHTLY = pytest.mark.parametrize("count", [8, pytest.param(10**6, marks=pytest.mark.nightly)])

Fault = tuple[int, str]  # the number of a call, and how it fails
Failed = tuple[bool, str, str]  # whether the error is one of multiseg, its type, its message


class Faults:
    """Runs a program once for each fault, and counts the results."""

    def __init__(self, run: Programs, program: str, arguments: dict[str, Any]) -> None:
        self.folder = run.root / f"faults-{program}-{arguments.get('backend', '')}-{len(list(run.root.iterdir()))}"
        self._run, self._program, self._arguments = run, program, arguments
        self._results: Counter[str] = Counter()
        self._lost: list[str] = []
        self._failed: dict[int, Change] = {}

    def without(self) -> Recorded:
        """Run it without a fault."""
        folder = self.folder / "without"
        folder.mkdir(parents=True)
        disk = Disk(folder)
        recording = self._run.recorder.run(
            f"helpers.power.programs:{self._program}", folder=str(folder), **self._arguments
        )
        assert recording.error is None, recording.message
        return Recorded(folder, disk, recording)

    def check(self, faults: list[Fault], check: Callable[[Path, Failed], str]) -> None:
        """Run it with each fault; ``check`` returns a result in a word, or raises AssertionError."""
        folder = self.folder / "faults"
        for number in range(len(faults)):
            (folder / str(number)).mkdir(parents=True)
        left = [0]
        current = [-1]

        def decide(change: Change) -> int:
            if change.kind == "mark":
                _, word, *rest = change.data.decode().split()
                current[0], left[0] = (
                    (int(rest[0]), faults[int(rest[0])][0]) if word == "begin" else (current[0], left[0])
                )
                left[0] = 0 if word == "ended" else left[0]
                return 0
            left[0] -= 1
            if left[0]:
                return 0
            self._failed[current[0]] = change
            return CODES[faults[current[0]][1]]

        recording = self._run.recorder.run(
            "helpers.power.programs:repeated", decide, folder=str(folder), program=self._program, times=len(faults),
            arguments=self._arguments,
        )  # fmt: skip
        assert recording.error is None, recording.message
        for number, (fault, error) in enumerate(zip(faults, recording.value, strict=True)):
            try:
                self._results[check(folder / str(number), error)] += 1
            except Exception as problem:
                change = self._failed.get(number)
                where = change and f"{change.kind} {change.path} {change.other}"
                self._lost.append(
                    f"{fault}, {where}: {type(problem).__name__}: {problem}; error: {error[1]} {error[2]}"
                )

    def show(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Print the counts, and assert that nothing was lost."""
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self._results.items()))
        name = f"{self._program} {self._arguments.get('backend', '')}".strip()
        with capsys.disabled():
            print(f"\n  failing calls, {name}: {sum(self._results.values()) + len(self._lost)}: {counts}")
        assert not self._lost, f"{len(self._lost)}:\n" + "\n".join(self._lost[:12])


def faults_of(changes: list[Change], count: int) -> list[Fault]:
    """Return ``count`` faults spread over all calls and kinds of failure; at most every kind for every call."""
    calls = [number for number, change in enumerate((c for c in changes if c.kind != "mark"), 1)]
    every = [(number, name) for number in calls for name in CODES]
    if count >= len(every):
        return every
    return [
        every[index * len(every) // count // len(CODES) * len(CODES) + index % len(CODES)] for index in range(count)
    ]


def ordered(tree: Tree) -> Tree:
    """Return a tree without what differs from run to run: the time on a page, and the order of keys of safetensors files."""
    result = dict(tree)
    for name, content in tree.items():
        if name.endswith(".html") and isinstance(content, bytes):
            result[name] = re.sub(rb" on [0-9-]+ [0-9:]+ UTC", b"", content)
        if name.endswith(".safetensors") and isinstance(content, bytes):
            size = 8 + int.from_bytes(content[:8], "little")
            header = json.dumps(json.loads(content[8:size]), sort_keys=True)
            result[name] = header.encode() + content[size:]
    return result


def check_error(error: Failed, folder: Path) -> None:
    """Check that an error is one of multiseg, or of a file, with a message that names a file of the folder."""
    typed, kind, message = error
    assert "Traceback" not in message, "the error is not one of multiseg, nor of a file"
    assert typed or kind in ("OSError", "FileNotFoundError", "InterruptedError"), "the type of the error"
    assert str(folder) in message, "the message names no file"


@EACH_RUN_AND_NIGHTLY
@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_is_the_old_or_the_new(
    name: str, count: int, run: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    names, arguments = OUTPUTS[name]
    faults = Faults(run, name, arguments(run.inputs))
    recorded = faults.without()
    known = [ordered(tree) for tree in versions(recorded.disk(), recorded.recording, names)]

    def check(folder: Path, error: Failed) -> str:
        tree = tree_of(folder)
        there = ordered(outputs(tree, names))
        others = [path for path, content in tree.items() if content is not None and path not in there]
        # beside a copy in the store are its lock and, when it is verified, what it was then
        kept = (".lock", ".stamps") if there else (".lock",)
        assert [path for path in others if not path.endswith(kept)] == [], "files are left over"
        if not error[1]:
            assert there == known[-1], "there is no error, but the output is not complete"
            return "complete"
        check_error(error, folder)
        assert there in known, "there is part of an output"
        return "an error, and the output complete" if there == known[-1] else "an error, and no or the old output"

    faults.check(faults_of(recorded.recording.changes, count), check)
    faults.show(capsys)


def check_training(run: Programs, backend: str, model: str | None, count: int, capsys: Any) -> None:
    arguments = {"dataset": run.inputs.dataset, "backend": backend, "model": model}
    faults = Faults(run, "train", arguments)
    recorded = faults.without()
    last = f"{RUN}/snapshots/epoch-0002"
    weights = {path.name: path.read_bytes() for path in (recorded.folder / last).iterdir() if path.suffix != ".json"}

    def check(folder: Path, error: Failed) -> str:
        if error[1]:
            check_error(error, folder)
            job = multiseg.Job(**programs.settings(**arguments))
            job.train(folder / RUN, resume=(folder / RUN).exists(), progress=False).close()
        for name, content in weights.items():
            assert (folder / last / name).read_bytes() == content, f"{name} differs"
        return "an error, and resumed to the bit" if error[1] else "complete"

    faults.check(faults_of(recorded.recording.changes, count), check)
    faults.show(capsys)


@EACH_RUN_AND_NIGHTLY
def test_a_training_is_resumed_to_the_bit(count: int, run: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    check_training(run, "numpy", None, count, capsys)


@pytest.mark.nightly
def test_a_framework_s_training_is_resumed_to_the_bit(
    backend: str, run: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run.inputs.folder / f"faults-{backend}"
    folder.mkdir()
    check_training(run, backend, str(write_model(folder, backend)), 300, capsys)
