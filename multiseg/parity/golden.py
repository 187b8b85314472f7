"""A float64 reference that is kept in a file, so that one framework alone is checked against it later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiseg.reference.bounded import Array, Bounded
from multiseg.topology import Topology


@dataclass(frozen=True)
class GoldenValues:
    """What the reference computes, from the images to the weights after the last step, without any framework.

    ``layers``: the outputs of layers (N, ...) by the names of values; ``loss``: its exact value, then Caffe's if that differs;
    ``gradients`` by the names of parameters; all float64 with the bound of float32's rounding, propagated from the images.
    ``weights``: the trained parameters after the last step, float64; empty without steps. ``left_out``: what could not be
    computed, in words; None if everything was.
    """

    layers: Mapping[str, Bounded]
    loss: list[Bounded] = field(default_factory=list)
    gradients: Mapping[str, Bounded] = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)
    left_out: str | None = None


@dataclass(frozen=True)
class Golden:
    """The content of a golden file, see multiseg.parity.golden_file.

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
    values: GoldenValues
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
