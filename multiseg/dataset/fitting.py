"""Check that a dataset is suitable for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.dataset.cropping import CENTRE
from multiseg.dataset.names import MEAN
from multiseg.errors import SettingsError, setting
from multiseg.network import CLASSES

Shape = tuple[int, int, int]
OF_DATASET = "dataset"  # of divide_std


def shapes_of(dataset: Any) -> tuple[Shape, Shape]:
    """Return the common shape ``(C, H, W)`` of the training images and that of their labels; of mixed sizes, the first image's.

    Raises SettingsError if there are no training images or no labels.
    """
    shape, label_shape = dataset.train.shape, dataset.train.label_shape
    if not len(dataset.train):
        raise SettingsError(f"{dataset.path}: has no training images")
    if is_mixed(dataset):
        feature, label = dataset.train[0]
        if label is None:
            raise SettingsError(f"{dataset.path}: its training images have no labels")
        return feature.shape, label.shape
    if label_shape is None and shape is not None:
        raise SettingsError(
            f"{dataset.path}: its training images have no labels, or labels of several sizes; training needs one"
        )
    assert shape is not None and label_shape is not None
    return shape, label_shape


def outputs_of(dataset: Any) -> tuple[int | None, int | None]:
    """Return how many outputs a network for a dataset has, and the channels of its images; None for what is not known.

    Outputs are the classes, or the channels of label images.
    """
    try:
        shape, label_shape = shapes_of(dataset)
    except SettingsError:  # reported with the dataset's other problems
        return None, None
    if dataset.labels.kind == CLASSES:
        return len(dataset.labels.names) or None, shape[0]
    return label_shape[0], shape[0]


def is_mixed(dataset: Any) -> bool:
    """Return whether the images of a dataset differ in size, so that each is a batch of its own."""
    return any(len(split) > 0 and split.shape is None for split in (dataset.train, dataset.val))


def batch_problems(dataset: Any, values: Mapping[str, Any]) -> list[str]:
    """Return which settings (numbers of images by name) put images of different sizes into one batch; None is not checked."""
    if not is_mixed(dataset):
        return []
    return [
        f"{setting(name, value)}: the images of {dataset.path} differ in size and cannot form a batch; choose "
        f"{setting(name, 1)}, or {_crop_for(name)}, or create the dataset without mixed sizes"
        for name, value in values.items()
        if value not in (None, 1)
    ]


def _crop_for(name: str) -> str:
    return (
        f"train on crops of one size ({setting('crop')})" if name != "val_batch_size" else setting("val_crop", CENTRE)
    )


def mean_of(
    dataset: Any, subtract_mean: str, mean_of_job: Sequence[float] | None = None
) -> npt.NDArray[np.float32] | None:
    """Return the mean to subtract, RGB: ``(C,)`` for ``pixel``, ``(C, H, W)`` for ``image``, None for ``none``.

    ``mean_of_job``, colours as B, G, R, takes precedence if it is not None; a single number is that of all channels. Raises
    SettingsError if it has another number of channels than the images, or if the dataset has no mean image.
    """
    if mean_of_job is not None:
        return _per_channel(dataset, "mean", mean_of_job)
    if subtract_mean == "none":
        return None
    mean: npt.NDArray[np.float32] | None = dataset.mean_pixel if subtract_mean == "pixel" else dataset.mean_image
    if mean is None:
        raise SettingsError(
            f"{dataset.path}: has no mean image ({MEAN}); train with {setting('subtract_mean', 'none')}"
        )
    return mean


def std_of(dataset: Any, divide_std: str | Sequence[float] | None) -> npt.NDArray[np.float32] | None:
    """Return the standard deviation ``(C,)``, RGB, by which features are divided; None for no division.

    ``divide_std`` is OF_DATASET for that of the training images (:func:`multiseg.dataset.deviation.standard_deviation`), or
    numbers, colours as B, G, R; a single number is that of all channels. Raises SettingsError if it has another number of
    channels than the images, or if a channel of all images is constant.
    """
    if divide_std is None:
        return None
    if not isinstance(divide_std, str):
        return _per_channel(dataset, "divide_std", divide_std)
    std: npt.NDArray[np.float64] = dataset.standard_deviation
    if not std.all():
        raise SettingsError(
            f"{setting('divide_std', divide_std)}: channel {int(np.argmin(std))} of the training images of {dataset.path} has "
            f"one value only; specify numbers, or leave {setting('divide_std')} out"
        )
    return std.astype(np.float32)


def _per_channel(dataset: Any, name: str, values: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return a number for each channel (C,), RGB, of a setting with colours as B, G, R or one number for all channels."""
    channels = shapes_of(dataset)[0][0]
    numbers = list(values) * (channels if len(values) == 1 else 1)
    if len(numbers) != channels:
        raise SettingsError(
            f"{setting(name, list(values))}: has {len(numbers)} numbers, the images have {channels} channels"
        )
    return np.array(numbers[::-1] if channels == 3 else numbers, np.float32)
