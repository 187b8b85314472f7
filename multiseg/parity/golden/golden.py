"""A float64 reference that is kept in a file, so that one framework alone is checked against it later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiseg.parity.reference_values import ReferenceValues
from multiseg.reference.bounded import Array
from multiseg.topology import Topology


@dataclass(frozen=True)
class Golden:
    """The content of a golden file, see multiseg.parity.golden.file.

    ``topology`` is the network, ``classes`` whether its loss takes class indices; ``settings`` are plain values: those that a
    check with this file may not change. ``weights`` are the initial ones, float32, for images in RGB; ``trained`` names those
    that the solver updates. ``features`` and ``labels`` are the different images (M, C, H, W) as stored in the dataset,
    ``batches`` (steps, N) their indices in each batch; ``mean`` and ``std`` are as in multiseg.layout.Layout.
    """

    path: Path
    topology: Topology
    classes: bool
    settings: Mapping[str, Any]
    weights: Mapping[str, Array]
    trained: tuple[str, ...]
    features: Array
    labels: Array
    batches: Array
    mean: Array | None
    std: Array | None
    values: ReferenceValues
    version: str = ""  # of the multiseg that wrote the file

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return int(self.settings["steps"])

    @property
    def loss(self) -> str | None:
        """Name of the loss, None for the network file's own."""
        name: str | None = self.settings["loss"]
        return name
