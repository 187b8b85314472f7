"""The interface of a trained network that testing uses; multiseg.run.run.Run implements it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from multiseg.dataset.cropping import Size
from multiseg.dataset.foreground import Foreground
from multiseg.dataset.labels import Labels
from multiseg.images import Exif
from multiseg.layout import Layout
from multiseg.network import CLASSES, IMAGES, label_kind
from multiseg.topology.geometry import Geometry
from multiseg.worker.client import Worker

Shape = tuple[int, int, int]


class TestedNetwork(Protocol):
    """A trained network: shapes are (C, H, W); ``worker()`` is the backend's process with its weights loaded."""

    settings: dict[str, Any]

    @property
    def model(self) -> Path: ...

    @property
    def input_shape(self) -> Shape: ...

    @property
    def image_shape(self) -> Shape: ...

    @property
    def val_crop(self) -> Size | None: ...

    @property
    def label_shape(self) -> Shape: ...

    @property
    def labels(self) -> Labels | None: ...

    @property
    def mixed_sizes(self) -> bool: ...

    @property
    def classifies(self) -> bool: ...

    @property
    def foreground(self) -> Foreground: ...

    @property
    def classes(self) -> int | None: ...

    @property
    def ignored_by_loss(self) -> Sequence[int]: ...

    @property
    def ignored(self) -> Sequence[int]: ...

    @property
    def values(self) -> str: ...

    @property
    def exif(self) -> Exif: ...

    @property
    def layout(self) -> Layout: ...

    @property
    def geometry(self) -> Geometry: ...

    @property
    def description(self) -> str: ...

    def worker(self) -> Worker: ...


def pixel_labels(run: TestedNetwork, output: Sequence[int]) -> Labels | None:
    """Return the labels of a network with an ``output`` (C, H, W) that scores the classes of every pixel; None for another one.

    A run that does not record its kind of labels reads them as :func:`multiseg.network.label_kind` decides. An output of one
    channel that is compared with masks of two classes scores them, too: class 1 is its foreground, or class 0 if that is dark.
    """
    labels = run.labels or Labels(label_kind(IMAGES, run.label_shape, output))
    is_map = tuple(output[1:]) != (1, 1) and not run.classifies
    if labels.kind == IMAGES and output[0] == 1 and 2 in (len(labels.names), len(labels.colours)):
        labels = replace(labels, kind=CLASSES)
    return labels if is_map and labels.kind == CLASSES else None
