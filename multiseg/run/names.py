"""Names of the files in a run folder, and the columns of its history."""

from __future__ import annotations

FORMAT = 1
COLUMNS = (
    "epoch", "iteration", "train_loss", "val_loss", "l1", "l2", "pixel_accuracy", "iou", "learning_rate", "seconds",
    "val_seconds", "images_per_second",
)  # fmt: skip
