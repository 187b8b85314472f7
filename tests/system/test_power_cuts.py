"""After a power cut at any moment the old or the new is there, whole; a training is resumed to the bit. See docs/reliability.md.

The programs run once. Their changes of files are replayed on a model of a disk that forgets what was not synchronised, and what
the disk may then have is judged after every change: four states of each moment in every run, hundreds in the nightly one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from helpers import lending
from helpers.linear_net import write_model
from helpers.power import programs
from helpers.power.cuts import Cut, Tally, cuts, follow, judge, one_of, put, versions
from helpers.power.disk import Disk
from helpers.power.recorder import Recorder, Recording
from helpers.power.runs import RUN, WholeRun, checker

FOURTH = Path(__file__).parents[1] / "fourth_backend"
FURTHER = int(os.environ.get("MULTISEG_TEST_CUTS", "25"))  # random states of each kind after every change, nightly
EACH_RUN_AND_NIGHTLY = pytest.mark.parametrize("further", [0, pytest.param(FURTHER, marks=pytest.mark.nightly)])

Show = Callable[[str, Tally], None]


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


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    """The backend in NumPy is installed, and workers are lent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOURTH))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FOURTH), os.environ.get("PYTHONPATH")])))
        with lending.everywhere():
            yield


@pytest.fixture(scope="module")
def inputs(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    draw = np.random.default_rng(0)
    for kind in ("input", "target"):
        (folder / "images" / kind).mkdir(parents=True)
        for number in range(10):
            picture = Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8))
            picture.save(folder / "images" / kind / f"{number}.png")
    images = folder / "images"
    multiseg.Dataset.create(
        folder / "dataset", input=images / "input", target=images / "target", val_percent=40, seed=1
    )
    for seed, name in enumerate(("a", "b")):
        settings = {**programs.settings(str(folder / "dataset"), "numpy", None), "keep": "all", "seed": seed}
        multiseg.Job(**settings).train(folder / name, progress=False).close()
    small = write_model(folder, "caffe")
    (folder / "large.prototxt").write_text(small.read_text().replace("num_output: 4", "num_output: 40"))
    return Inputs(folder)


@pytest.fixture(scope="module")
def run(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    root = tmp_path_factory.mktemp("power")
    with Recorder(root, programs.MODULES) as recorder:
        yield Programs(recorder, root, inputs)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for states, in memory where there is one: they are written thousands of times."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path))
    yield folder / "state"
    shutil.rmtree(folder)


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    def report(name: str, tally: Tally) -> None:
        with capsys.disabled():
            print(f"\n  power cuts, {name}: {tally}")
        assert not tally.lost, "\n".join(tally.lost[:20])

    return report


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


@EACH_RUN_AND_NIGHTLY
@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_is_the_old_or_the_new(name: str, further: int, run: Programs, scratch: Path, show: Show) -> None:
    names, arguments = OUTPUTS[name]
    recorded = run.recorded(name, name, **arguments(run.inputs))
    check = one_of(versions(recorded.disk(), recorded.recording, names), names)
    show(name, judge(cuts(recorded.disk(), recorded.recording, 1, further), check, scratch))


@EACH_RUN_AND_NIGHTLY
def test_the_copy_of_a_run_from_the_cluster_is_a_run(further: int, run: Programs, scratch: Path, show: Show) -> None:
    recorded = run.recorded("mirror", "mirror", run=run.inputs.a)
    check = checker(WholeRun.of(recorded.disk(), recorded.recording), {})
    show("mirror", judge(cuts(recorded.disk(), recorded.recording, 1, further), check, scratch))


def judged_training(recorded: Recorded, further: int, scratch: Path) -> tuple[Tally, WholeRun, dict[str, Cut]]:
    examples: dict[str, Cut] = {}
    whole = WholeRun.of(recorded.disk(), recorded.recording)
    tally = judge(cuts(recorded.disk(), recorded.recording, 1, further), checker(whole, examples), scratch)
    return tally, whole, examples


def check_resumed(examples: dict[str, Cut], whole: WholeRun, settings: dict[str, Any], scratch: Path) -> None:
    """Resume from one state of each result; the last snapshots must be equal to that of the training without a cut."""
    last = f"{RUN}/snapshots/epoch-0002"
    for result, cut in examples.items():
        put(cut.tree, scratch)
        multiseg.Job(**settings).train(scratch / RUN, resume=RUN in cut.tree, progress=False).close()
        for name, content in whole.parts[last].items():
            if name not in ("position.json", "sums.json"):  # with times
                assert (scratch / last / name).read_bytes() == content, f"{name} differs after: {result}"


@EACH_RUN_AND_NIGHTLY
def test_a_training_is_resumed_to_the_bit(further: int, run: Programs, scratch: Path, show: Show) -> None:
    arguments = {"dataset": run.inputs.dataset, "backend": "numpy", "model": None}
    recorded = run.recorded("train", "train", **arguments)
    tally, whole, examples = judged_training(recorded, further, scratch)
    show("train, numpy", tally)
    assert {"no run", "not begun", "at step 0", "at step 3", "at step 6"} <= set(examples)
    check_resumed(examples, whole, programs.settings(**arguments), scratch)


@EACH_RUN_AND_NIGHTLY
def test_a_framework_s_training_is_resumed_to_the_bit(
    backend: str, further: int, run: Programs, scratch: Path, show: Show
) -> None:
    folder = run.inputs.folder / f"net-{backend}"
    folder.mkdir(exist_ok=True)
    arguments = {"dataset": run.inputs.dataset, "backend": backend, "model": str(write_model(folder, backend))}
    recorded = run.recorded(f"train-{backend}", "train", **arguments)
    tally, whole, examples = judged_training(recorded, further, scratch)
    show(f"train, {backend}", tally)
    assert {"at step 0", "at step 3", "at step 6"} <= set(examples)
    wanted = {name: cut for name, cut in examples.items() if name in ("at step 0", "at step 3")}
    check_resumed(wanted, whole, programs.settings(**arguments), scratch)
