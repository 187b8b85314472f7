"""After a power cut at any moment the old or the new is there, whole; a training is resumed to the bit. See docs/reliability.md.

The programs run once. Their changes of files are replayed on a model of a disk that forgets what was not synchronised, and what
the disk may then have is judged after every change: four states of each moment in every run, hundreds in the nightly one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers.linear_net import write_model
from helpers.power import programs
from helpers.power.bench import OUTPUTS, Programs, Recorded
from helpers.power.cuts import Cut, Tally, cuts, judge, one_of, put, versions
from helpers.power.runs import RUN, WholeRun, checker
from multiseg.model_files import weights_file

FURTHER = int(os.environ.get("MULTISEG_TEST_CUTS", "25"))  # random states of each kind after every change, nightly
EACH_RUN_AND_NIGHTLY = pytest.mark.parametrize("further", [0, pytest.param(FURTHER, marks=pytest.mark.nightly)])

Show = Callable[[str, Tally], None]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    def report(name: str, tally: Tally) -> None:
        with capsys.disabled():
            print(f"\n  power cuts, {name}: {tally}")
        assert not tally.lost, "\n".join(tally.lost[:20])

    return report


@EACH_RUN_AND_NIGHTLY
@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_is_the_old_or_the_new(name: str, further: int, run: Programs, scratch: Path, show: Show) -> None:
    names, arguments = OUTPUTS[name]
    recorded = run.recorded(name, name, **arguments(run.inputs))
    check = one_of(versions(recorded.disk(), recorded.recording, names), names)
    show(name, judge(cuts(recorded.disk(), recorded.recording, 1, further), check, scratch))


@pytest.mark.needs("tensorflow")
@pytest.mark.nightly
def test_a_checkpoint_of_two_conversions_is_refused(run: Programs, scratch: Path, show: Show) -> None:
    """It consists of several files. With the values of one conversion it may be read, as where only the graph is missing."""
    folder = run.inputs.folder / "checkpoint"
    folder.mkdir()
    network = write_model(folder, "tensorflow")
    shapes = {"conv1.weight": (4, 1, 3, 3), "conv1.bias": (4,), "conv2.weight": (1, 4, 1, 1), "conv2.bias": (1,)}
    weights = []
    for number in (1, 2):
        arrays = {name: np.full(shape, number, np.float32) for name, shape in shapes.items()}
        weights.append(folder / f"{number}.safetensors")
        weights_file.write(weights[-1], weights_file.NeutralWeights(arrays))
    recorded = run.recorded(
        "convert-tf", "convert", weights=list(map(str, weights)), to="tf", out="net.ckpt", network=str(network)
    )
    names = r"(net\.ckpt.*|checkpoint)"

    def read(found: Path) -> str:
        multiseg.convert(found / "net.ckpt", "safetensors", folder / "read.safetensors")
        values = {
            value for array in weights_file.read(folder / "read.safetensors").weights.values() for value in array.flat
        }
        assert values in ({1.0}, {2.0}), f"a mixture is read without an error: {values}"
        return "weights of one conversion"

    check = one_of(versions(recorded.disk(), recorded.recording, names), names, read)
    show("convert to tf", judge(cuts(recorded.disk(), recorded.recording, 1, 10), check, scratch))


@pytest.mark.parametrize(
    ("way", "found"),
    [
        ("in place", "it is neither version 1 nor a later one"),
        ("without fsync", "it is neither version 1 nor a later one"),
        ("without fsync of the folder", "it is neither version 2 nor a later one"),
        ("carefully", None),
    ],
)
def test_careless_writing_is_found(way: str, found: str | None, run: Programs, scratch: Path) -> None:
    recorded = run.recorded(way.replace(" ", "-"), "careless", way=way)
    check = one_of(versions(recorded.disk(), recorded.recording, "file"), "file")
    lost = judge(cuts(recorded.disk(), recorded.recording, 1, 0), check, scratch).lost
    assert any(found in loss for loss in lost) if found else not lost


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
    resumed = examples if further else {"at step 3": examples["at step 3"]}
    check_resumed(resumed, whole, programs.settings(**arguments), scratch)
