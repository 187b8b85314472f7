"""The loss of a validation does not depend on its batch size, however a PyTorch file normalises its loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers.void_masks import check_loss_of_any_batch_size
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


@pytest.mark.parametrize("loss", CASES)
def test_the_loss_does_not_depend_on_the_batch_size(void_dataset: multiseg.Dataset, loss: str, tmp_path: Path) -> None:
    model = tmp_path / "net.py"
    model.write_text(NETWORK.replace("LOSS", loss))
    job = Job(dataset=void_dataset.path, backend="torch", model=model, batch_size=BATCH, learning_rate=1e-9)

    def expected(values: Any, counted: Any, labels: Any) -> float:
        return CASES[loss](values, counted, np.where(counted, WEIGHTS[np.where(counted, labels[:, 0], 0)], 0.0))

    check_loss_of_any_batch_size(job, tmp_path, expected)


@pytest.mark.parametrize("loss", [loss for loss in CASES if "sum" not in loss])
def test_batches_of_unequal_divisors_are_not_accumulated(
    void_dataset: multiseg.Dataset, loss: str, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(NETWORK.replace("LOSS", loss))
    job = Job(
        dataset=void_dataset, backend="torch", model=tmp_path / "net.py", epochs=1, batch_size=2, accumulate=2,
        learning_rate=1e-9, seed=1, threads=1,
    )  # fmt: skip
    with pytest.raises(
        SettingsError, match=r"accumulate=2: the loss of net\.py .* choose batch_size=4 and accumulate=1"
    ):
        job.train(tmp_path / "run", progress=False)
