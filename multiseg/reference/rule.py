"""What a rule for a type of layer is: the layer's outputs, and a function that takes gradients back through it."""

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
    """The reference has no rule for this; the message says for what."""


@dataclass(frozen=True)
class Given:
    """What a rule is given: the layer, its inputs (N, ...), its weights by part, and whether the network is trained."""

    layer: Layer
    inputs: list[Bounded]
    weights: Mapping[str, Array]
    training: bool = False

    @property
    def said(self) -> Mapping[str, Any]:
        """The layer's parameters with the vocabulary's defaults, rounded to float32: what frameworks compute with."""
        parameters = VOCABULARY[self.layer.type].complete(self.layer.parameters)
        return {key: _single(value) for key, value in parameters.items()}


Rule = Callable[[Given], "tuple[list[Bounded], Pull]"]


def _single(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_single(item) for item in value]
    return float(np.float32(value)) if isinstance(value, float) else value
