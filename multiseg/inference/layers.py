"""Activations and parameters of a trained network for one image: pictures and statistics."""

from __future__ import annotations

from pathlib import Path

from multiseg.errors import SettingsError
from multiseg.files import make_folder, write_json, write_text
from multiseg.inference import predictor
from multiseg.inference.activations import Activations
from multiseg.inference.options import Options
from multiseg.inference.tested import TestedNetwork


class Layers(Activations):
    """Activations and weights of a network for one image, with a method that writes them as a page."""

    def to_html(self, path: str | Path) -> Path:
        """Write a self-contained page with pictures and statistics, and a JSON file of the statistics; return the page's path.

        Raises SettingsError if they cannot be written.
        """
        from multiseg.inference.layers_page import render

        path = Path(path)
        try:
            make_folder(path.parent)
            write_json(path.with_suffix(".json"), self.to_dict())
            write_text(path, render(self))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be written ({error.strerror or error})") from error
        return path


def layers(run: TestedNetwork, image: str | Path, options: Options) -> Layers:
    """Return activations and parameters for one image; see Run.layers."""
    pixels = predictor.prepare(run, image, options)[None]
    if options.pad:
        pixels = predictor.padded(run, pixels)
    predictor.predict(run, pixels, options)  # raises a clear error if the image's size is not supported
    _, _, activations = run.worker().call(
        "predict", features=run.layout.features(pixels), labels=None, activations=True
    )
    weights = run.worker().call("get_weights")
    return Layers(
        title=run.description,
        source=Path(image),
        input=pixels[0],
        activations={name: run.layout.activation(values)[0] for name, values in activations.items()},
        weights=weights,
    )
