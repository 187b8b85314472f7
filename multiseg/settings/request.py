"""The settings of a job as the user requests them: plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiseg import (
    dataset as datasets,
)  # whose classes are imported when they are used: the help of all commands imports this
from multiseg.network import FLOAT32


@dataclass
class JobRequest:
    """The settings of a job, documented in :class:`multiseg.Job`."""

    dataset: datasets.Dataset | str | Path
    backend: str = "torch"
    model: str | Path | None = None
    epochs: int = 150
    subtract_mean: str | None = None
    mean: Sequence[float] | None = None
    divide_std: str | Sequence[float] | None = None
    recipe: str = "tutorial"
    learning_rate: float | None = None
    batch_size: int | None = None
    val_batch_size: int | None = None
    solver: str = "sgd"
    solver_options: Mapping[str, float] = field(default_factory=dict)
    multipliers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    accumulate: int = 1
    lr_policy: str | Mapping[str, Any] | None = None
    loss: str | None = None
    loss_options: Mapping[str, float] = field(default_factory=dict)
    class_weights: str | Sequence[float] | None = None
    ignore_index: int | None = None
    seed: int | None = None
    device: str = "auto"
    threads: int = 0
    data_workers: int | None = None
    image_cache: int | None = None
    lowering: bool = True
    compile: bool = False
    precision: str = FLOAT32
    val_interval: float = 1
    snapshot_interval: float = 1
    keep: str = "best"
    metric: str | None = None
    threshold: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    weights: str | Path | None = None
    solver_state: bool | None = None
    freeze: Sequence[str] = ()
    augment: Mapping[str, Any] = field(default_factory=dict)
    crop: int | str | Sequence[int] | None = None
    val_crop: str | None = None
    classes: int | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ()
