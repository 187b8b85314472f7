"""Run folders as a training leaves them, without any framework."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from helpers.report_pages import Write
from multiseg.run.names import COLUMNS

# further settings of every job.json
SETTINGS = {
    "epochs": 4, "batch_size": 4, "device": "cpu", "lowering": True, "recipe": "equal", "learning_rate": 0.1,
    "solver": {"name": "sgd"}, "multipliers": {}, "accumulate": 1, "freeze": [], "subtract_mean": "none",
}  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a run folder as a training leaves it, snapshot included but for its weights."""

    def write(
        name: str = "run",
        backend: str = "torch",
        iou: float = 0.9,
        seconds: float = 10.0,
        loss: str = "smooth_l1",
        own_loss: bool = False,
        content: str = "0123456789abcdef",
        dataset: str = "triangles",
        epochs: int = 3,
        status: str = "finished",
        **settings: Any,
    ) -> Path:
        folder = tmp_path / name
        (folder / "snapshots" / f"epoch-{epochs:04}").mkdir(parents=True)
        rows = [
            {
                "epoch": epoch, "iteration": 100 * epoch, "train_loss": 2.0 / epoch if epoch else None,
                "val_loss": 2.0 / (epoch + 1), "l1": 100.0 / (epoch + 1), "l2": 5000.0 / (epoch + 1),
                "pixel_accuracy": 0.9, "iou": iou * epoch / epochs, "learning_rate": 0.01,
                "seconds": seconds if epoch else 0.0, "val_seconds": 0.1,
                "images_per_second": 900 / seconds if epoch else None,
            }
            for epoch in range(epochs + 1)
        ]  # fmt: skip
        with (folder / "history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        summary = {
            "status": status,
            "best_epoch": epochs,
            "train_seconds": seconds * epochs,
            "peak_memory_mb": 300.0,
            "epochs": epochs,
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        job = {
            "format": 1,
            "settings": {
                **SETTINGS,
                "backend": backend,
                "model": "fcn",
                "loss": loss,
                "seed": 1,
                "threads": 2,
                "val_batch_size": 4,
                **settings,
            },
            "dataset": {"path": dataset, "content_hash": content},
            "input_shape": [1, 32, 32],
            "label_shape": [1, 32, 32],
            "network": {"parameters": {"conv.weight": [8, 1, 3, 3], "conv.bias": [8]}, "own_loss": own_loss},
            "environment": {"framework": "2.0", "cpu": "a processor", "threads": 2},
        }
        (folder / "job.json").write_text(json.dumps(job))
        return folder

    return write
