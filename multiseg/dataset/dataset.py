"""Create and open dataset folders in DIGITS' layout."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset import digits
from multiseg.dataset import voc as voc_layout
from multiseg.dataset.creation import CreationOptions, Progress, create, random_seed
from multiseg.dataset.description import computed_hash, read_description, recorded_sum
from multiseg.dataset.deviation import standard_deviation
from multiseg.dataset.encodings import LabelEncoding, RecordEncoding
from multiseg.dataset.foreground import Side, foreground_of_stored
from multiseg.dataset.label_options import IGNORE, LabelOptions
from multiseg.dataset.label_tables import BORDER_COLOUR
from multiseg.dataset.labels import Labels
from multiseg.dataset.location import is_url, local
from multiseg.dataset.names import FEATURES, FILE, LABELS, MEAN, SPLITS
from multiseg.dataset.reading import Split
from multiseg.dataset.records import parse_mean
from multiseg.errors import DatasetError, SettingsError, setting
from multiseg.files import read_bytes
from multiseg.images import MOST_PIXELS, Channels, Exif
from multiseg.network import CLASSES, IMAGES, LabelKind

BYTE, FLOAT, HIGH_BYTE = "uint8", "float32", "high byte"  # of Dataset.values

PathLike = str | os.PathLike[str]


class Dataset:
    """Training and validation pairs of one dataset folder. Construct it with :meth:`create` or :meth:`open`.

    ``train`` and ``val`` are Splits; ``val`` is empty without validation pairs. ``info`` describes how it was created,
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
        input: PathLike | None = None,
        target: PathLike | None = None,
        val_input: PathLike | None = None,
        val_target: PathLike | None = None,
        val_percent: float = 10,
        input_ending: str = "",
        target_ending: str = "",
        voc: PathLike | None = None,
        channels: Channels = "none",
        feature_encoding: RecordEncoding = "png",
        label_encoding: LabelEncoding = "none",
        mixed_sizes: bool = False,
        labels: LabelKind = IMAGES,
        classes: PathLike | Sequence[str] | None = None,
        colours: PathLike | Sequence[Sequence[int]] | None = None,
        ignore: int | None = IGNORE,
        label_map: PathLike | Mapping[Any, Any] | None = None,
        label_channels: Channels | None = None,
        foreground: Side | float | None = None,
        seed: int | None = None,
        exif: Exif = "apply",
        max_pixels: int = MOST_PIXELS,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Create a dataset in the new folder ``folder`` from a folder of inputs and one of targets.

        Pairs are shuffled with ``seed`` (None: a random seed is chosen and stored), and ``val_percent`` percent, rounded
        down, are reserved for validation; separate ``val_input`` and ``val_target`` replace them and are not shuffled.
        ``input_ending`` and ``target_ending`` are ends of the names before the suffix in which partners differ, such as
        ``_mask``; images of other endings are left out.
        ``voc`` replaces the folders by one in PASCAL VOC's layout (JPEGImages, SegmentationClass, and train.txt and val.txt in
        ImageSets/Segmentation): masks of its 21 classes in its colours, or of ``classes`` and ``colours``, whose borders are
        ignored; ``mixed_sizes`` is on if the sizes differ.
        ``channels`` converts all images to L or RGB; ``mixed_sizes`` allows pairs of different sizes, without a mean image.
        ``exif`` "apply" turns images by their EXIF orientation, "ignore" reads them as they are stored. Inputs of more than
        8 bits keep their values, as float32. Images of more than ``max_pixels`` are refused before they are decoded. ``info``
        counts the images turned and laid over white, and the files left out.

        ``labels`` states what the targets are. Options of the inputs do not change the values of masks.

        - ``images``: pictures or binary masks. The numbers of palette, 1-bit, 2-bit and 16-bit files are kept, up to 255;
          ``label_channels`` converts targets to L or RGB (None: 8-bit ones as ``channels``). ``foreground`` is the object in
          binary masks: ``dark``, ``light``, or its value; None: dark as in the tutorial, and 1 in masks of 0 and 1.
        - ``classes``: masks of class indices from 0: the index of palette images, the value of grey images, the class of a
          colour. ``classes`` are their names, a file with one in each line or a list; ``colours`` a file with one ``R G B`` in
          each line or a list, which are looked up exactly, or ``palette`` for those of palette images. ``ignore`` is the label
          of pixels that count in no loss and no metric. Of two classes, ``foreground`` is that of binary metrics, 1 by default.

        ``label_map`` maps values or colours of masks to labels: a mapping, a file of lines such as ``7 0``, or text such as
        ``255:1``; other values are kept. Suspicious labels are a MultisegWarning, and in ``info["warnings"]``.

        The same folders, options and seed produce the same databases, byte for byte, for any number of ``workers``
        (None: one per core). ``progress`` is called with the number of pairs done and the total.

        Raises SettingsError for an invalid argument, DatasetError for missing folders or partners, an existing ``folder``
        or a full disk, ImageError for an image that is unreadable or has another shape. No files are left behind then.
        """
        if voc is not None:
            if any(place is not None for place in (input, target, val_input, val_target)):
                raise SettingsError(
                    f"{setting('voc')} states all folders; leave out {setting('input')} and {setting('target')}"
                )
            input, target = Path(voc) / voc_layout.IMAGES, Path(voc) / voc_layout.MASKS
            labels = CLASSES
            if classes is None and colours is None:
                classes, colours = voc_layout.NAMES, voc_layout.COLOURS
                if label_map is None and ignore is not None:
                    label_map = {BORDER_COLOUR: ignore}
        if input is None or target is None:
            raise SettingsError(
                f"{setting('input')} and {setting('target')} are missing; state the folders of inputs and targets, or "
                f"{setting('voc')} for a folder in PASCAL VOC's layout"
            )
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
            exif=exif,
            voc=None if voc is None else os.fspath(voc),
            max_pixels=max_pixels,
            input_ending=input_ending,
            target_ending=target_ending,
        )
        label_options = LabelOptions(labels, classes, colours, ignore, label_map, label_channels, foreground)
        for warning in create(options, label_options, folder, workers, progress):
            warnings.warn(warning, stacklevel=2)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: PathLike) -> Dataset:
        """Open a dataset folder of multiseg, a DIGITS job folder, or a multiseg dataset at a URL (docs/dataset.md).

        Raises DatasetError if it is not a dataset, or if its databases are damaged.
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
        """Return how the dataset was created, and each split's count and shapes; only the latter for a DIGITS job folder."""
        if self._description is not None:
            return self._description
        return {
            split.name: {"count": len(split), "shape": split.shape, "label_shape": split.label_shape}
            for split in (self.train, self.val)
        }

    @cached_property
    def labels(self) -> Labels:
        """What the labels are: ``.kind`` is ``images`` or ``classes``. Raises DatasetError for a kind that is unknown.

        A dataset made before dataset.json had it holds images, whose foreground is read from the labels. DIGITS' class index in
        the record itself is one for each image, and its job folders of "Images > Segmentation" hold class masks, with the names
        and colours in their status.pickle, which is not unpickled.
        """
        if self._description is not None and "labels" in self._description:
            return Labels.from_json(self._description["labels"], str(self.path / FILE))
        if self._description is None:
            labels = digits.read_labels(self.path)
            if labels is not None:
                return labels
        if self.train.labelled_in_records:
            return Labels(CLASSES)
        return Labels(foreground=foreground_of_stored(map(self.train.label, range(len(self.train)))))

    def label_counts(self, split: str) -> dict[int, int] | None:
        """Return how often each value occurs in the labels of ``split``, train or val; None if dataset.json does not hold it."""
        stored = self.info.get("label_values")
        if stored is None or split not in stored:
            return None
        return {int(value): int(count) for value, count in stored[split].items()}

    @cached_property
    def values(self) -> str:
        """What the features' values are: ``uint8``, ``float32``, or ``high byte``.

        ``high byte`` is for a dataset that an earlier multiseg may have created from the high bytes of 16-bit images.
        """
        if len(self.train) and self.train[0][0].dtype != np.uint8:
            return FLOAT
        made = self._description
        if made is not None and "values" not in made and made.get("channels") in ("L", "RGB"):
            return HIGH_BYTE
        return BYTE

    @property
    def exif(self) -> Exif:
        """Whether images were turned by their EXIF orientation at creation; DIGITS and earlier versions ignored it."""
        return "apply" if self.info.get("exif") == "apply" else "ignore"

    @cached_property
    def mean_image(self) -> NDArray[np.float32] | None:
        """Return the mean of the training images ``(C, H, W)`` RGB, rounded as in DIGITS; None if there is none.

        Raises DatasetError if the file cannot be read.
        """
        return read_mean(self.path)

    @cached_property
    def mean_pixel(self) -> NDArray[np.float32] | None:
        """Return the mean image averaged per channel ``(C,)`` RGB, DIGITS' "pixel" mean; None if there is no mean image."""
        if self.mean_image is None:
            return None
        pixel: NDArray[np.float32] = self.mean_image.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        return pixel

    @cached_property
    def standard_deviation(self) -> NDArray[np.float64]:
        """The standard deviation of each channel ``(C,)``, RGB, of the training images; all are read once."""
        return standard_deviation(self.train)

    @cached_property
    def content_hash(self) -> str:
        """Return the SHA-256 of all records; computed by reading them all if the dataset has no description by multiseg."""
        if self._description is not None and isinstance(self._description.get("content_hash"), str):
            return str(self._description["content_hash"])
        return computed_hash(self.path)


def read_mean(folder: Path) -> NDArray[np.float32] | None:
    """Read the mean of the training images of a dataset folder; see Dataset.mean_image.

    Raises DatasetError if it is not that with which the dataset was created.
    """
    path = folder / MEAN
    stored = recorded_sum(folder, MEAN)
    try:
        content = read_bytes(path)
        if stored is not None and sha256(content).hexdigest() != stored:
            raise DatasetError(
                "is damaged: its SHA-256 is not that in dataset.json; copy the dataset again, or create it again"
            )
        return parse_mean(content)
    except FileNotFoundError:
        if stored is not None:
            raise DatasetError(f"{path}: is missing; copy the dataset again, or create it again") from None
        return None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None


def _open(folder: Path, name: str, required: bool, mixed: bool | None) -> Split:
    features = folder / SPLITS[name] / FEATURES
    if not features.is_dir():
        if required:
            raise DatasetError(f"{folder}: is not a dataset: {features} is missing")
        return Split(name, None)
    labels = features.parent / LABELS
    return Split(name, features, labels if labels.is_dir() else None, mixed)
