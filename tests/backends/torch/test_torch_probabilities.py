"""Losses that compute binary cross entropies in functions: their outputs are logits, and labels beyond 0 and 1 are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from multiseg_torch.probabilities import of_loss
from PIL import Image
from torch import Tensor, nn

import multiseg
from multiseg import Job
from multiseg.errors import SettingsError

pytestmark = pytest.mark.needs("torch")

NETWORK = """
import torch
from torch import nn
import torch.nn.functional as F
def network(params):
    return {"model": nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)), "loss": lambda o, y: LOSS}
"""
LOGITS, PROBABILITIES, RANGE = {"logits": True}, {"logits": False}, {"label_range": [0, 1]}


class _Combined(nn.Module):
    """A binary cross entropy and a Dice term of the same sigmoid, with a state that a call changes."""

    def __init__(self) -> None:
        super().__init__()
        self.cross_entropy, self.calls = nn.BCEWithLogitsLoss(), 0

    def forward(self, output: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        loss: Tensor = self.cross_entropy(output, labels) + 1 - (output.sigmoid() * labels).mean()
        return loss


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (nn.BCEWithLogitsLoss(), LOGITS | RANGE),
        (nn.BCELoss(), PROBABILITIES | RANGE),
        (nn.CrossEntropyLoss(), {}),
        (F.binary_cross_entropy_with_logits, LOGITS | RANGE),
        (F.binary_cross_entropy, PROBABILITIES | RANGE),
        (_Combined(), LOGITS | RANGE),
        (lambda o, y: F.binary_cross_entropy(torch.sigmoid(o), y), LOGITS | RANGE),
        (lambda o, y: F.binary_cross_entropy_with_logits(o[:, 0], y[:, 0] / 255), LOGITS | {"label_range": [0, 255]}),
        (lambda o, y: F.binary_cross_entropy_with_logits(o, (y > 127).float()), LOGITS),
        (lambda o, y: F.binary_cross_entropy_with_logits(o, y * 0.1), LOGITS | {"label_range": [0, 10]}),
        (lambda o, y: F.binary_cross_entropy_with_logits(o, y, (y != 255).float()), LOGITS),
        (lambda o, y: F.binary_cross_entropy_with_logits(o, y, reduction="none")[y < 255].mean(), LOGITS),
        (lambda o, y: F.binary_cross_entropy_with_logits(o[y < 255], y[y < 255]), LOGITS),
        (lambda o, y: 1 - (o.sigmoid() * y).mean(), LOGITS),
        (lambda o, y: F.mse_loss(o, y), {}),
        (lambda o, y: 1 / 0, {}),
    ],
)
def test_what_a_loss_computes(loss: Any, expected: dict[str, Any]) -> None:
    state = torch.get_rng_state()
    assert of_loss(loss, (1, 4, 5), (1, 4, 5)) == expected
    assert torch.equal(torch.get_rng_state(), state)
    assert getattr(loss, "calls", 0) == 0


def dataset(root: Path, value: int) -> multiseg.Dataset:
    draw = np.random.default_rng(1)
    for name in ("input", "target"):
        (root / name).mkdir(parents=True)
    for number in range(8):
        mask = draw.random((8, 8)) < 0.3
        Image.fromarray((100 * mask + 50).astype(np.uint8)).save(root / "input" / f"{number}.png")
        Image.fromarray((mask * value).astype(np.uint8)).save(root / "target" / f"{number}.png")
    return multiseg.Dataset.create(root / "ds", input=root / "input", target=root / "target", val_percent=50, seed=1)


@pytest.mark.parametrize(
    "loss", ["F.binary_cross_entropy_with_logits(o, y)", "F.binary_cross_entropy(torch.sigmoid(o), y)"]
)
def test_a_function_is_measured_as_the_module(loss: str, tmp_path: Path) -> None:
    model = tmp_path / "net.py"
    model.write_text(NETWORK.replace("LOSS", loss))
    masks = dataset(tmp_path / "1", 1)
    job = {
        "backend": "torch",
        "model": model,
        "epochs": 1,
        "batch_size": 2,
        "learning_rate": 1e-4,
        "seed": 1,
        "threads": 1,
    }
    with Job(dataset=masks, **job).train(tmp_path / "run", progress=False) as run:
        features, labels = masks.val.read(range(len(masks.val)))
        assert labels is not None
        predicted, true = run.predict(features) > 0, labels > 0
        row = run.history[-1]
        assert row["iou"] == pytest.approx((predicted & true).sum() / (predicted | true).sum(), abs=1e-12)
        assert row["pixel_accuracy"] == pytest.approx((predicted == true).mean(), abs=1e-12)
    with pytest.raises(SettingsError, match=r"its loss takes labels of 0 to 1; .* 0 to 255: .*label_map='255:1'"):
        Job(dataset=dataset(tmp_path / "255", 255), **job).train(tmp_path / "refused", progress=False)
