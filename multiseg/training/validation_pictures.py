"""Keep what a network computes for the first validation images as pictures in the run folder."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from multiseg.dataset.class_colours import background, palette
from multiseg.dataset.cropping import CentreCrop
from multiseg.dataset.foreground import Foreground
from multiseg.dataset.labels import Labels
from multiseg.errors import MultisegError
from multiseg.files import write_bytes
from multiseg.images import picture_of, to_image
from multiseg.images.classes import overlay_image
from multiseg.inference.output import Output
from multiseg.network import CLASSES
from multiseg.pages.pictures import reduced
from multiseg.run.names import PICTURES

COUNT = 4  # images
SIDE = 256  # longest side of a picture, in pixels


class ValidationPictures:
    """Writes ``N-input.png``, ``N-target.png`` and ``N-output.png`` for the first images of a split.

    Targets and outputs are overlays for classes of pixels. Nothing is written for other outputs that are no pictures.
    ``labels`` describes the dataset's labels, with the kind that the network reads. A failure does not affect the training.
    """

    def __init__(
        self, folder: Path, split: Any, labels: Labels, foreground: Foreground, crop: tuple[int, int] | None
    ) -> None:
        self._folder, self._split, self._labels, self._foreground = folder / PICTURES, split, labels, foreground
        self._change = CentreCrop(crop, split.name) if crop and len(split) else None
        self._inputs: dict[int, npt.NDArray[Any]] = {}  # by index, of the images whose input and target are written
        self._seen = 0  # outputs of the current validation

    def begin(self) -> None:
        """Begin a validation: the next output is that of the split's first image."""
        self._seen = 0

    def add(self, outputs: npt.NDArray[np.float32]) -> None:
        """Write the pictures of the outputs (N, C, H, W) of the next batch, as far as they are of the first images."""
        if outputs.shape[2:] == (1, 1):  # scores of the classes of whole images
            return
        for output in outputs[: COUNT - self._seen]:
            with suppress(OSError, MultisegError, ValueError):
                self._folder.mkdir(exist_ok=True)
                if self._seen not in self._inputs:
                    self._inputs[self._seen] = self._write_pair(self._seen)
                self._save(f"{self._seen}-output.png", self._picture(output, self._inputs[self._seen]))
            self._seen += 1

    def _write_pair(self, index: int) -> npt.NDArray[Any]:
        feature: npt.NDArray[Any]
        feature, target = self._split[index]
        if self._change is not None:
            feature, target = self._change.pair(feature, target)
        self._save(f"{index}-input.png", picture_of(feature))
        self._save(f"{index}-target.png", self._target(target, feature))
        return feature

    def _target(self, target: npt.NDArray[Any], feature: npt.NDArray[Any]) -> Image.Image:
        if self._labels.kind == CLASSES:
            colours = palette(self._labels)
            return overlay_image(
                picture_of(feature), target[0].astype(np.uint8), colours, transparent=background(self._labels)
            )
        return picture_of(target) if target.max() > 1 else to_image(target * np.float32(255))

    def _picture(self, output: npt.NDArray[np.float32], feature: npt.NDArray[Any]) -> Image.Image:
        if self._labels.kind == CLASSES:
            return Output(output, feature, labels=self._labels, foreground=self._foreground).overlay()
        if self._foreground.output_threshold is not None:  # outputs are logits
            return to_image(127.5 * (1 + np.tanh(output / 2)))  # 255 sigmoid(output)
        return to_image(output * np.float32(255) if self._foreground.threshold <= 1 else output)

    def _save(self, name: str, picture: Image.Image) -> None:
        buffer = io.BytesIO()
        reduced(picture, SIDE).save(buffer, "PNG")
        write_bytes(self._folder / name, buffer.getvalue(), durable=False, follow=False)
