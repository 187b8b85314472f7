"""A run is resumed with its own copy of the network file, without naming one, also if the original is gone or has changed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multiseg import Dataset, Job
from multiseg.errors import MultisegWarning, TrainingStopped
from multiseg.training.signals import Stop

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 1 kernel_size: 1 weight_filler { type: "xavier" } } }
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    for name in ("input", "target"):
        (folder / name).mkdir()
        for number in range(4):
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return Dataset.create(folder / "dataset", input=folder / "input", target=folder / "target", val_percent=50, seed=1)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("original", ["gone", "same", "changed"])
def test_a_run_is_resumed_with_its_own_copy(
    backend: str, images: Dataset, original: str, named: bool, tmp_path: Path
) -> None:
    if named and original != "gone":
        pytest.skip(
            "a named file that exists is used; test_helper_modules.py tests that one that has changed is refused"
        )
    model = tmp_path / "net.prototxt"
    model.write_text(NET)
    settings: dict[str, Any] = {
        "dataset": images, "backend": backend, "epochs": 2, "batch_size": 2, "val_batch_size": 2, "learning_rate": 1e-9,
        "seed": 1, "threads": 1, "loss": "l1",
    }  # fmt: skip
    stop = Stop()

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 1:
            stop.ask()

    with pytest.raises(TrainingStopped):
        Job(**settings, model=model).train(tmp_path / "run", progress=interrupt, stop=stop)
    if original == "gone":
        model.unlink()
    elif original == "changed":
        model.write_text(NET.replace("kernel_size: 1", "kernel_size: 3"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Job(**settings, model=model if named else None).train(
            tmp_path / "run", resume=True, progress=False
        ) as run:
            assert run.summary["status"] == "finished" and run.history[-1]["epoch"] == 2
            assert {tuple(w.shape) for w in run.worker().call("get_weights").values()} == {(1, 1, 1, 1), (1,)}
    told = [str(each.message) for each in caught if isinstance(each.message, MultisegWarning)]
    assert len(told) == (original == "changed")
    assert all(f"{model}: has changed since" in text and "run/model/net.prototxt" in text for text in told)
