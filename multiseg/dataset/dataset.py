"""A dataset folder: DIGITS' layout on disk, written and read."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.creation import CreationOptions, Progress, create, random_seed
from multiseg.dataset.description import FILE, computed_hash, read_description
from multiseg.dataset.encoding import RecordEncoding
from multiseg.dataset.labels import Labels
from multiseg.dataset.location import MEAN, is_url, local
from multiseg.dataset.reading import Split
from multiseg.dataset.records import parse_mean
from multiseg.errors import DatasetError
from multiseg.images import Channels
from multiseg.network import CLASSES, IMAGES

PathLike = str | os.PathLike[str]


class Dataset:
    """Training and validation pairs of one dataset folder. Make one with :meth:`create` or :meth:`open`.

    ``train`` and ``val`` are Splits; ``val`` is empty where nothing was set aside. ``info`` describes how it was created,
    ``labels`` what the labels are (images, or class indices).
    """

    def __init__(self, path: Path, train: Split, val: Split, description: dict[str, Any] | None) -> None:
        self.path = path
        self.train = train
        self.val = val
        self._description = description

    @classmethod
    def create(
        cls,
        folder: PathLike,
        *,
        input: PathLike,
        target: PathLike,
        val_input: PathLike | None = None,
        val_target: PathLike | None = None,
        val_percent: float = 10,
        channels: Channels = "none",
        feature_encoding: RecordEncoding = "png",
        label_encoding: RecordEncoding = "none",
        mixed_sizes: bool = False,
        seed: int | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Create a dataset in the new folder ``folder`` from a folder of inputs and one of targets.

        Pairs are shuffled with ``seed`` (None: one is chosen and kept) and ``val_percent`` percent, rounded down,
        are set aside for validation; separate ``val_input`` and ``val_target`` take their place and are not shuffled.
        ``channels`` converts all images to L or RGB; ``mixed_sizes`` allows pairs of different sizes, and then there
        is no mean image. The same folders, options and seed give the same databases, byte for byte, whatever the
        number of ``workers`` (None: one per core). ``progress`` is called with pairs done and pairs in all.

        Raises SettingsError for an argument that cannot be, DatasetError for missing folders or partners, an existing
        ``folder`` or a full disk, ImageError for an image that is unreadable or does not fit. Nothing is left behind.
        """
        options = CreationOptions(
            input=os.fspath(input),
            target=os.fspath(target),
            val_input=None if val_input is None else os.fspath(val_input),
            val_target=None if val_target is None else os.fspath(val_target),
            val_percent=val_percent,
            channels=channels,
            feature_encoding=feature_encoding,
            label_encoding=label_encoding,
            mixed_sizes=mixed_sizes,
            seed=random_seed() if seed is None else seed,
        )
        create(options, folder, workers, progress)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: PathLike) -> Dataset:
        """Open a dataset folder of ours or a DIGITS job folder, or a dataset of ours at a URL (docs/dataset.md).

        Raises DatasetError where it is none, or where its databases are damaged.
        """
        path = local(folder) if isinstance(folder, str) and is_url(folder) else Path(folder)
        if not path.is_dir():
            raise DatasetError(f"{path}: no such dataset folder")
        description = read_description(path)
        mixed = None if description is None else bool(description.get("mixed_sizes"))
        return cls(path, _open(path, "train", True, mixed), _open(path, "val", False, mixed), description)

    def __repr__(self) -> str:
        return f"<Dataset {self.path}: {len(self.train)} training and {len(self.val)} validation pairs>"

    @cached_property
    def info(self) -> dict[str, Any]:
        """How the dataset was made, and each split's count and shapes; only the latter for a DIGITS job folder."""
        if self._description is not None:
            return self._description
        return {
            split.name: {"count": len(split), "shape": split.shape, "label_shape": split.label_shape}
            for split in (self.train, self.val)
        }

    @cached_property
    def labels(self) -> Labels:
        """What the labels are: ``.kind`` is ``images`` or ``classes``. Raises DatasetError for a kind that is unknown.

        A dataset made before dataset.json had it holds images; DIGITS' class index in the record itself is one for each image.
        """
        if self._description is not None and "labels" in self._description:
            return Labels.from_json(self._description["labels"], str(self.path / FILE))
        return Labels(CLASSES if self.train.labelled_in_records else IMAGES)

    @cached_property
    def mean_image(self) -> NDArray[np.float32] | None:
        """The training images' mean ``(C, H, W)`` RGB, rounded as DIGITS does; None where there is none.

        Raises DatasetError where the file cannot be read.
        """
        return read_mean(self.path)

    @cached_property
    def mean_pixel(self) -> NDArray[np.float32] | None:
        """The mean image's average per channel ``(C,)`` RGB, DIGITS' "pixel" mean; None where there is none."""
        if self.mean_image is None:
            return None
        pixel: NDArray[np.float32] = self.mean_image.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        return pixel

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over all records; computed by reading them all where the dataset is not one of ours."""
        if self._description is not None and isinstance(self._description.get("content_hash"), str):
            return str(self._description["content_hash"])
        return computed_hash(self.path)


def read_mean(folder: Path) -> NDArray[np.float32] | None:
    """Read the training images' mean of a dataset folder; see Dataset.mean_image."""
    path = folder / MEAN
    try:
        return parse_mean(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None


def _open(folder: Path, name: str, needed: bool, mixed: bool | None) -> Split:
    features = folder / f"{name}_db" / "features"
    if not features.is_dir():
        if needed:
            raise DatasetError(f"{folder}: is not a dataset: {features} is missing")
        return Split(name, None)
    labels = features.parent / "labels"
    return Split(name, features, labels if labels.is_dir() else None, mixed)
