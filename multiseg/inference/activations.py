"""The activations of a network's layers for one image, and its parameters, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multiseg.images import Values
from multiseg.inference.statistics import Statistics
from multiseg.layout import Floats


@dataclass(frozen=True, eq=False)
class Activations:
    """``activations`` (C, H, W) or (features,) by layer, in the order of computation, and ``weights`` by parameter.

    Arrays are neutral: channels first, weights OIHW and IOHW. ``input`` is the input image, (C, H, W).
    """

    title: str
    source: Path
    input: Values
    activations: Mapping[str, Floats]
    weights: Mapping[str, Floats]

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as plain values for JSON."""
        parts = {"activations": self.activations, "weights": self.weights}
        return {
            "network": self.title,
            "image": str(self.source),
            **{name: {key: asdict(Statistics.of(one)) for key, one in part.items()} for name, part in parts.items()},
        }
