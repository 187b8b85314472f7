"""Check that a dataset is suitable for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.errors import SettingsError, setting

Shape = tuple[int, int, int]


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


def is_mixed(dataset: Any) -> bool:
    """Return whether the images of a dataset differ in size, so that each is a batch of its own."""
    return any(len(split) > 0 and split.shape is None for split in (dataset.train, dataset.val))


def batch_problems(dataset: Any, batch_size: Any, val_batch_size: Any, accumulate: Any) -> list[str]:
    """Return which of these settings put images of different sizes into one batch; None is not checked."""
    if not is_mixed(dataset):
        return []
    values = {"batch_size": batch_size, "val_batch_size": val_batch_size, "accumulate": accumulate}
    return [
        f"{setting(name, value)}: the images of {dataset.path} differ in size and cannot form a batch; choose "
        f"{setting(name, 1)}, or create the dataset without mixed sizes"
        for name, value in values.items()
        if value not in (None, 1)
    ]


def mean_of(
    dataset: Any, subtract_mean: str, mean_of_job: Sequence[float] | None = None
) -> npt.NDArray[np.float32] | None:
    """Return the mean to subtract, RGB: ``(C,)`` for ``pixel``, ``(C, H, W)`` for ``image``, None for ``none``.

    ``mean_of_job``, colours as B, G, R, takes precedence if it is not None; a single number is that of all channels. Raises
    SettingsError if it has another number of channels than the images, or if the dataset has no mean image.
    """
    if mean_of_job is not None:
        channels = dataset.train.shape[0] if dataset.train.shape else len(mean_of_job)
        values = list(mean_of_job) * (channels if len(mean_of_job) == 1 else 1)
        if len(values) != channels:
            raise SettingsError(
                f"{setting('mean', list(mean_of_job))}: has {len(values)} numbers, the images have {channels} channels"
            )
        return np.array(values[::-1] if channels == 3 else values, np.float32)
    if subtract_mean == "none":
        return None
    mean: npt.NDArray[np.float32] | None = dataset.mean_pixel if subtract_mean == "pixel" else dataset.mean_image
    if mean is None:
        raise SettingsError(
            f"{dataset.path}: has no mean image (train_db/mean.binaryproto); train with {setting('subtract_mean', 'none')}"
        )
    return mean
