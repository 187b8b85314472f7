"""Inputs and the recorder for tests of power cuts and failing calls."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multiseg
from helpers import lending
from helpers.linear_net import write_model
from helpers.power import programs
from helpers.power.bench import Inputs, Programs
from helpers.power.recorder import Recorder

FOURTH = Path(__file__).parents[2] / "fourth_backend"


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
