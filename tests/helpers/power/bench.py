"""What the tests of power cuts and of failing calls work with: inputs, and programs that are run under the recorder."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.power.cuts import follow
from helpers.power.disk import Disk
from helpers.power.recorder import Recorder, Recording


@dataclass(frozen=True)
class Inputs:
    """Images, a dataset of them, and two runs of a backend in NumPy with a snapshot after each of two epochs."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        return str(self.folder / name)


@dataclass(frozen=True)
class Recorded:
    """A program that ran in a folder: the disk before it, and what it changed."""

    folder: Path
    before: Disk
    recording: Recording

    def disk(self) -> Disk:
        return deepcopy(self.before)


class Programs:
    """Runs each program once, when it is first asked for."""

    def __init__(self, recorder: Recorder, root: Path, inputs: Inputs) -> None:
        self.recorder, self.root, self.inputs = recorder, root, inputs
        self._recorded: dict[str, Recorded] = {}

    def recorded(self, name: str, program: str, **arguments: Any) -> Recorded:
        if name not in self._recorded:
            folder = self.root / name
            folder.mkdir()
            disk = Disk(folder)
            recording = self.recorder.run(f"helpers.power.programs:{program}", folder=str(folder), **arguments)
            assert recording.error is None, recording.message
            self._recorded[name] = Recorded(folder, disk, recording)
            follow(deepcopy(disk), recording)
        return self._recorded[name]


OUTPUTS: dict[str, tuple[str, Callable[[Inputs], dict[str, Any]]]] = {
    # name: the paths of the output as a regular expression, and the arguments of the program
    "create": (r"data/sets/out", lambda inputs: {"images": inputs.images}),
    "compare": (r"pages/page\.html", lambda inputs: {"runs": [inputs.a, inputs.b]}),
    "test_db": (r"data/sets/out", lambda inputs: {"run": inputs.a, "database": f"{inputs.dataset}/val_db/features"}),
    "cache": (r"multiseg/datasets/[0-9a-f]+-[0-9a-f]+", lambda inputs: {"dataset": inputs.dataset}),
    "export": (
        r"net\.py",
        lambda inputs: {"networks": [f"{inputs.folder}/{net}.prototxt" for net in ("small", "large")], "to": "torch",
                        "out": "net.py"},
    ),
    "convert": (
        r"net\.safetensors",
        lambda inputs: {"weights": [inputs.a, inputs.b], "to": "safetensors", "out": "net.safetensors"},
    ),
}  # fmt: skip
