"""The interface of a rule for a layer type: it returns the layer's outputs and a function that propagates gradients back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg.reference.bounded import Array, Bounded
from multiseg.topology.layer import Layer
from multiseg.topology.vocabulary import VOCABULARY

Gradients = tuple["list[Bounded]", "dict[str, Bounded]"]  # by input, and by part of the layer's weights
Pull = Callable[["list[Bounded]"], Gradients]


class NotComputable(Exception):
    """The reference cannot compute something; the message names it."""


@dataclass(frozen=True)
class LayerCall:
    """Arguments of a rule: the layer, its inputs (N, ...), its weights by part, and whether this is a training pass."""

    layer: Layer
    inputs: list[Bounded]
    weights: Mapping[str, Array]
    training: bool = False

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The layer's parameters with the defaults of the vocabulary, rounded to float32 as in the frameworks."""
        parameters = VOCABULARY[self.layer.type].complete(self.layer.parameters)
        return {key: _single(value) for key, value in parameters.items()}


Rule = Callable[[LayerCall], "tuple[list[Bounded], Pull]"]


def _single(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_single(item) for item in value]
    return float(np.float32(value)) if isinstance(value, float) else value
