"""Any backend's network file is trained by any other backend, as its own source."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers import small_models
from multiseg import backend as registry
from multiseg.errors import ModelError, RunError

MODELS = registry.get("caffe").default_model_path.parent
OWNERS = {"fcn.prototxt": "caffe", "fcn.lua": "torch", "fcn_torch.py": "torch", "fcn_tensorflow.py": "tensorflow"}
PAIRS = [
    pytest.param(file, target, marks=pytest.mark.needs(owner, target), id=f"{file}-{target}")
    for file, owner in OWNERS.items()
    for target in ("caffe", "tensorflow", "torch")
    if target != owner
]
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 54, "seed": 3, "threads": 1}


@pytest.mark.parametrize(("file", "target"), PAIRS)
def test_trains_the_fcn_of_any_file(file: str, target: str, dataset: Any, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    job = multiseg.Job(dataset=dataset, backend=target, model=MODELS / file, **QUICK)
    run = job.train(tmp_path / "run", progress=events.append)
    name = f"{Path(file).stem}_{target}{registry.get(target).formats[0]}"
    assert {each.name for each in (run.path / "model").iterdir()} == {file, name}
    assert (run.path / "model" / file).read_bytes() == (MODELS / file).read_bytes()
    assert run.model.name == name
    assert math.isfinite(run.history[-1]["train_loss"])
    assert run.summary["parameters"] == 8_652_097
    settings = json.loads((run.path / "job.json").read_text())["settings"]
    assert (settings["model"], settings["exported"], settings["loss"]) == (file, name, f"{name}'s own")
    assert [event["exported"] for event in events if event["event"] == "start"] == [name]


@pytest.mark.needs("torch")
def test_a_resumed_run_goes_on_with_its_own_file_and_knows_when_the_original_changes(
    dataset: Any, tmp_path: Path
) -> None:
    model = tmp_path / "small.prototxt"
    model.write_text(small_models.CAFFE)
    job = multiseg.Job(dataset=dataset, backend="torch", model=model, **{**QUICK, "epochs": 2})
    run = job.train(tmp_path / "run", progress=False)
    (tmp_path / "run" / "summary.json").unlink()  # as if it had not come to its end
    written = run.model.stat().st_mtime_ns
    assert run.predict(np.zeros((1, 1, 32, 32), np.uint8)).shape == (1, 1, 32, 32)
    assert len(job.train(tmp_path / "run", resume=True, progress=False).history) == 3
    assert run.model.stat().st_mtime_ns == written
    (tmp_path / "run" / "summary.json").unlink()
    model.write_text(small_models.CAFFE + "\n")
    with pytest.raises(RunError, match=r"small\.prototxt: has changed since"):
        job.train(tmp_path / "run", resume=True, progress=False)


@pytest.mark.needs("torch")
def test_what_cannot_be_said_leaves_no_run_behind(dataset: Any, tmp_path: Path) -> None:
    model = tmp_path / "odd.prototxt"
    layer = 'layer { name: "odd" type: "SPP" bottom: "data" top: "odd" spp_param { pyramid_height: 2 } }'
    model.write_text(f'layer {{ name: "data" type: "Data" top: "data" }}\n{layer}')
    job = multiseg.Job(dataset=dataset, backend="torch", model=model, **QUICK)
    with pytest.raises(ModelError, match=r"odd.prototxt: PyTorch cannot express it exactly; layer 'odd' \(SPP\)"):
        job.train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
