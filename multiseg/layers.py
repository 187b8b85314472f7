"""What a trained network's layers make of one image, and its parameters: pictures and statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multiseg import inference
from multiseg.errors import SettingsError
from multiseg.files import write_json, write_text
from multiseg.images import Pixels
from multiseg.layout import Floats

if TYPE_CHECKING:
    from multiseg.inference import Options
    from multiseg.run import Run

BINS = 20  # of a histogram, as DIGITS has


@dataclass(frozen=True)
class Statistics:
    """Of an array's finite values; ``not_finite`` counts the others. Deviation over all values, not a sample's."""

    shape: tuple[int, ...]
    mean: float
    std: float
    minimum: float
    maximum: float
    histogram: tuple[int, ...]
    not_finite: int

    @classmethod
    def of(cls, values: Floats) -> Statistics:
        """The histogram has BINS bins of one width from the minimum to the maximum."""
        finite = values[np.isfinite(values)].astype(np.float64)
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        counts, _ = np.histogram(finite, BINS, (low, high) if high > low else (low - 0.5, low + 0.5))
        return cls(
            shape=tuple(values.shape),
            mean=float(finite.mean()) if finite.size else 0.0,
            std=float(finite.std()) if finite.size else 0.0,
            minimum=low,
            maximum=high,
            histogram=tuple(int(count) for count in counts),
            not_finite=int(values.size - finite.size),
        )


@dataclass(frozen=True, eq=False)
class Layers:
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

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page of pictures and statistics, and the statistics beside it as JSON; return its path.

        Raises SettingsError where they cannot be written.
        """
        from multiseg.report.layers import render

        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path.with_suffix(".json"), self.to_dict())
            write_text(path, render(self))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be written ({error.strerror or error})") from error
        return path


def layers(run: Run, image: str | Path, options: Options) -> Layers:
    """See Run.layers."""
    pixels = inference.prepare(run, image, options)[None]
    if options.pad:
        pixels = inference.padded(run, pixels)
    inference.predict(run, pixels, options)  # says what is wrong with the image's size, if anything is
    _, _, made = run.worker().call("predict", features=run.layout.features(pixels), labels=None, activations=True)
    weights = run.worker().call("get_weights")
    return Layers(
        title=f"{run.title} (run {run.name}, epoch {run.snapshot.epoch if run.snapshot else 0})",
        source=Path(image),
        input=pixels[0],
        activations={name: run.layout.activation(values)[0] for name, values in made.items()},
        weights=weights,
    )
