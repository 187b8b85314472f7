"""Testing with a trained network: an image, a list of images, a database.

image file -> pixels (uint8, CHW, RGB), resized or padded -> network, whole or in tiles -> output (float32, CHW), cropped
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multiseg.errors import ModelError, MultisegError, SettingsError
from multiseg.images import Pixels
from multiseg.inference.options import Options
from multiseg.inference.output import Failure, Output
from multiseg.inference.predictor import predict, prepare
from multiseg.inference.tested import TestedNetwork
from multiseg.layout import Floats


def test_one(run: TestedNetwork, image: str | Path, options: Options) -> Output:
    """The output for one image file. Raises ImageError and ModelError naming it."""
    found = next(test_list(run, [image], options))
    if isinstance(found, Failure):
        raise found.error
    return found


def test_list(run: TestedNetwork, images: Iterable[str | Path], options: Options) -> Iterator[Output | Failure]:
    """Outputs in order, with Failures in the place of images that cannot be tested.

    Images of one size that follow each other go through the network together, as many as a validation batch holds pixels.
    """
    _, height, width = run.input_shape
    most = run.settings["val_batch_size"] * height * width
    together: list[Loaded] = []
    for image in images:
        loaded = _load(run, image, options)
        if together and (loaded.shape != together[0].shape or (len(together) + 1) * math.prod(loaded.shape[1:]) > most):
            yield from _together(run, together, options)
            together = []
        together.append(loaded)
    yield from _together(run, together, options)


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image of a list, or why it could not be loaded."""

    source: Path
    found: Pixels | MultisegError

    @property
    def shape(self) -> tuple[int, ...]:
        return () if isinstance(self.found, MultisegError) else self.found.shape


def _load(run: TestedNetwork, image: str | Path, options: Options) -> Loaded:
    try:
        return Loaded(Path(image), prepare(run, image, options))
    except MultisegError as error:
        return Loaded(Path(image), error)


def _together(run: TestedNetwork, some: list[Loaded], options: Options) -> Iterator[Output | Failure]:
    """Test images of one size at once; or tell of those that could not be loaded."""
    pixels = [each.found for each in some if not isinstance(each.found, MultisegError)]
    outputs: Iterable[Floats | MultisegError] = [each.found for each in some if isinstance(each.found, MultisegError)]
    if pixels:
        try:
            outputs = predict(run, np.stack(pixels), options)
        except (ModelError, SettingsError) as error:
            outputs = [type(error)(f"{each.source}: {error}") for each in some]
    for each, output in zip(some, outputs, strict=True):
        if isinstance(output, MultisegError) or isinstance(each.found, MultisegError):
            assert isinstance(output, MultisegError)
            yield Failure(each.source, output)
        else:
            yield Output(output, each.found, options.pixel_conversion, each.source)
