"""Test image files with a trained network.

image file -> values (uint8 or float32, CHW, RGB), resized or padded -> network, whole or in tiles -> output (float32, CHW)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multiseg.errors import ModelError, MultisegError, SettingsError
from multiseg.images import Values
from multiseg.inference.options import Options
from multiseg.inference.output import Failure, Output
from multiseg.inference.predictor import predict, prepare
from multiseg.inference.tested import TestedNetwork, pixel_labels
from multiseg.layout import Floats


def test_one(run: TestedNetwork, image: str | Path, options: Options) -> Output:
    """Return the output for one image file. Raises ImageError or ModelError naming it."""
    result = next(test_list(run, [image], options))
    if isinstance(result, Failure):
        raise result.error
    return result


def test_list(run: TestedNetwork, images: Iterable[str | Path], options: Options) -> Iterator[Output | Failure]:
    """Yield an Output for each image in order, or a Failure for an image that cannot be tested.

    Consecutive images of equal size are tested in one batch, with at most as many pixels as a validation batch.
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
    """An image of a list: its pixels, or the error with which loading failed."""

    source: Path
    found: Values | MultisegError

    @property
    def shape(self) -> tuple[int, ...]:
        return () if isinstance(self.found, MultisegError) else self.found.shape


def _load(run: TestedNetwork, image: str | Path, options: Options) -> Loaded:
    try:
        return Loaded(Path(image), prepare(run, image, options))
    except MultisegError as error:
        return Loaded(Path(image), error)


def _together(run: TestedNetwork, some: list[Loaded], options: Options) -> Iterator[Output | Failure]:
    """Test images of one size in one batch; yield a Failure for those that could not be loaded."""
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
            labels = pixel_labels(run, output.shape)
            yield Output(
                output, each.found, options.pixel_conversion, each.source, run.classifies, labels, run.foreground
            )
