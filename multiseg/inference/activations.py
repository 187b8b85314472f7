"""What each layer of a network computes for one image, and its parameters, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multiseg.images import Pixels
from multiseg.inference.statistics import Statistics
from multiseg.layout import Floats


@dataclass(frozen=True, eq=False)
class Activations:
    """``activations`` (C, H, W) or (features,) by layer, in the order of computation, and ``weights`` by parameter.

    Neutral: channels first, weights OIHW and IOHW. The image is ``input``, (C, H, W) uint8 as it was put in.
    """

    title: str
    source: Path
    input: Pixels
    activations: Mapping[str, Floats]
    weights: Mapping[str, Floats]

    def to_dict(self) -> dict[str, Any]:
        """The statistics as plain values that JSON can hold."""
        parts = {"activations": self.activations, "weights": self.weights}
        return {
            "network": self.title,
            "image": str(self.source),
            **{name: {key: asdict(Statistics.of(one)) for key, one in part.items()} for name, part in parts.items()},
        }
