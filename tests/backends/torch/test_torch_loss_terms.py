"""The loss of a validation does not depend on its batch size, however a PyTorch file normalises its loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers.void_masks import losses, void_masks
from multiseg import Job
from multiseg.errors import SettingsError

pytestmark = pytest.mark.needs("torch")

NETWORK = """
import torch
import torch.nn.functional as F
from torch import nn

def own(output, labels):
    return F.cross_entropy(output, labels[:, 0].long(), ignore_index=255)

def network(params):
    return {"model": nn.Conv2d(1, 3, 3, padding=1), "loss": LOSS}
"""
BATCH = 4  # of training
WEIGHTS = np.array([1.0, 3.0, 0.5])
Expected = Callable[[Any, Any, Any], float]
CASES: dict[str, Expected] = {
    "nn.CrossEntropyLoss(ignore_index=255)": lambda v, n, w: v.sum() / n.sum(),
    "nn.CrossEntropyLoss(torch.tensor([1.0, 3.0, 0.5]), ignore_index=255)": lambda v, n, w: (w * v).sum() / w.sum(),
    "nn.CrossEntropyLoss(ignore_index=255, reduction='sum')": lambda v, n, w: v.sum() / len(v) * BATCH,
    "own": lambda v, n, w: v.sum() / n.sum(),
    "lambda o, l: F.cross_entropy(o, l[:, 0].long(), torch.tensor([1.0, 3.0, 0.5]), ignore_index=255)":
        lambda v, n, w: (w * v).sum() / w.sum(),
    "lambda o, l: F.cross_entropy(o, l[:, 0].long(), ignore_index=255, reduction='sum')":
        lambda v, n, w: v.sum() / len(v) * BATCH,
    "lambda o, l: F.nll_loss(F.log_softmax(o, 1), l[:, 0].long(), ignore_index=255)": lambda v, n, w: v.sum() / n.sum(),
}  # fmt: skip


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    return void_masks(tmp_path_factory.mktemp("masks"))


@pytest.mark.parametrize("loss", CASES)
def test_the_loss_does_not_depend_on_the_batch_size(masks: multiseg.Dataset, loss: str, tmp_path: Path) -> None:
    model = tmp_path / "net.py"
    model.write_text(NETWORK.replace("LOSS", loss))
    job = Job(
        dataset=masks, backend="torch", model=model, epochs=1, batch_size=BATCH, val_batch_size=3, learning_rate=1e-9, seed=1,
        threads=1,
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        features, labels = masks.val.read(range(len(masks.val)))
        assert labels is not None
        values, counted = losses(run.predict(features), labels)
        weights = np.where(counted, WEIGHTS[np.where(counted, labels[:, 0], 0)], 0.0)
        value = CASES[loss](values, counted, weights)
        assert run.history[-1]["val_loss"] == pytest.approx(value, rel=1e-5)
        for size in (1, 4, len(features)):
            tested = run.test_db(masks.path / "val_db" / "features", batch_size=size)
            assert tested["val_loss"] == pytest.approx(value, rel=1e-5), size
        assert np.sum(tested["confusion"]) == (labels != 255).sum()


@pytest.mark.parametrize("loss", [loss for loss in CASES if "sum" not in loss])
def test_batches_of_unequal_divisors_are_not_accumulated(masks: multiseg.Dataset, loss: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK.replace("LOSS", loss))
    job = Job(
        dataset=masks, backend="torch", model=tmp_path / "net.py", epochs=1, batch_size=2, accumulate=2, learning_rate=1e-9,
        seed=1, threads=1,
    )  # fmt: skip
    with pytest.raises(
        SettingsError, match=r"accumulate=2: the loss of net\.py .* choose batch_size=4 and accumulate=1"
    ):
        job.train(tmp_path / "run", progress=False)
