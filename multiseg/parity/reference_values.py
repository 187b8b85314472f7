"""What the float64 reference computes for the batches of a check, end to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from multiseg.reference.bounded import Array, Bounded


@dataclass(frozen=True)
class ReferenceValues:
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
