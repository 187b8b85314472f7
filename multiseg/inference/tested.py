"""The interface of a trained network that testing uses; multiseg.run.Run implements it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from multiseg.dataset.foreground import Foreground
from multiseg.dataset.labels import Labels
from multiseg.images import Exif
from multiseg.layout import Layout
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
