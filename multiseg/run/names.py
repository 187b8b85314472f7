"""Names of the files in a run folder, and the columns of its history."""

from __future__ import annotations

from multiseg.settings.metrics import SCORES

FORMAT = 1
COLUMNS = (
    "epoch", "iteration", *(metric.key for metric in SCORES), "learning_rate", "seconds", "val_seconds",
    "images_per_second",
)  # fmt: skip
