"""The resolved settings of a job: what the user requests, checked and completed with the backend's defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from multiseg.backend import Backend
from multiseg.dataset.augmentation import Augmentation
from multiseg.dataset.cropping import Size
from multiseg.settings.schedules import Schedule

OWN_MEAN = "own"  # of subtract_mean, in job.json


# settings of the machine that trains, which do not affect the images, their order or the network
OF_MACHINE = ("threads", "data_workers", "image_cache")


@dataclass(frozen=True)
class Settings:
    """The checked settings of one training. They do not change: dataclasses.replace makes others.

    ``mean`` is subtracted if ``subtract_mean`` is OWN_MEAN: a number for each channel, colours as B, G, R. ``divide_std``: None,
    numbers in the same order, or OF_DATASET.
    Training images are cropped to ``crop`` at random, validation images to ``val_crop`` in the middle: (height, width), None for
    whole images. ``of_file`` names what the network file decided: ``crop`` (and ``val_crop``), ``augment`` (the flip).
    Batch sizes and ``loss`` are None where the network file, else the backend, decides them, and ``metric`` where the job does
    not state it; a :class:`multiseg.settings.loaded.LoadedSettings` has these values. ``exported`` is the name of the file to
    which a model of another backend is exported for this one; None where the model is one of this backend. ``origins`` holds, by
    setting, the path that the user gave of a file that was copied to this machine, and the ``folder`` of the run: job.json names
    these.
    """

    backend: Backend
    model: Path
    exported: str | None
    epochs: int
    subtract_mean: str
    mean: Sequence[float] | None
    divide_std: str | Sequence[float] | None
    recipe: str
    learning_rate: float
    batch_size: int | None
    val_batch_size: int | None
    solver: Mapping[str, Any]
    multipliers: Mapping[str, Mapping[str, float]]
    accumulate: int
    schedule: Schedule
    loss: str | None
    loss_options: Mapping[str, float]
    class_weights: tuple[float, ...]
    ignore_index: int | None
    seed: int
    device: str
    threads: int
    data_workers: int | None
    image_cache: int | None
    lowering: bool
    compile: bool
    precision: str
    val_interval: float
    snapshot_interval: float
    keep: str
    metric: str | None
    threshold: float
    patience: int | None
    min_delta: float
    weights: Path | None
    solver_state: bool | None
    freeze: tuple[str, ...]
    augmentation: Augmentation
    crop: Size | None
    val_crop: Size | None
    of_file: tuple[str, ...]
    origins: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as in job.json: plain values, with names for the backend, the schedule and the model."""
        plain = {name: getattr(self, name) for name in KEPT}
        return {
            **plain,
            "class_weights": list(self.class_weights),
            "backend": self.backend.name,
            "model": self.model.name,
            "lr_policy": self.schedule.to_json(),
            "weights": None if self.weights is None else self.origins.get("weights", str(self.weights)),
            "freeze": list(self.freeze),
            "augment": self.augmentation.to_json(),
            "crop": None if self.crop is None else list(self.crop),
            "val_crop": None if self.val_crop is None else list(self.val_crop),
        }


# the fields that job.json has under the same names
KEPT = tuple(
    item.name for item in fields(Settings) if item.name not in ("schedule", "augmentation", "of_file", "origins")
)
