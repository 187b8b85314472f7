"""The settings of a job after every check, filled in with the backend's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiseg.backend import Backend
from multiseg.dataset.augmentation import Augmentation
from multiseg.settings.schedules import Schedule


@dataclass
class Settings:
    """A job's settings, all checked; batch sizes and loss are filled in by the network where the job leaves them None.

    ``exported`` names the file that a model of another backend's is written as for this one; None where it is this one's.
    ``origins`` tells, by setting, where the user has what lies elsewhere here, the run ``folder`` too: what is kept names that.
    """

    backend: Backend
    model: Path
    exported: str | None
    epochs: int
    subtract_mean: str
    recipe: str
    learning_rate: float
    batch_size: int | None
    val_batch_size: int | None
    solver: dict[str, Any]
    multipliers: dict[str, dict[str, float]]
    accumulate: int
    schedule: Schedule
    loss: str | None
    seed: int
    device: str
    threads: int
    lowering: bool
    val_interval: float
    snapshot_interval: float
    keep: str
    metric: str
    threshold: float
    patience: int | None
    min_delta: float
    weights: Path | None
    solver_state: bool | None
    freeze: tuple[str, ...]
    augmentation: Augmentation
    origins: Mapping[str, str] = field(default_factory=dict)

    def describe(self, network: Mapping[str, Any]) -> None:
        """Fill in what the loaded network, which describes itself so, has decided."""
        for key in ("batch_size", "val_batch_size", "loss", "device"):
            setattr(self, key, network[key])

    def to_json(self) -> dict[str, Any]:
        """Plain dict, with names for the backend, the schedule and the model."""
        plain = {key: value for key, value in vars(self).items() if key not in ("schedule", "augmentation", "origins")}
        return {
            **plain,
            "backend": self.backend.name,
            "model": self.model.name,
            "lr_policy": self.schedule.to_json(),
            "weights": None if self.weights is None else self.origins.get("weights", str(self.weights)),
            "freeze": list(self.freeze),
            "augment": self.augmentation.to_json(),
        }
