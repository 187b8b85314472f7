"""Check that a dataset is suitable for training."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.errors import SettingsError, setting

Shape = tuple[int, int, int]


def shapes_of(dataset: Any) -> tuple[Shape, Shape]:
    """Return the common shape ``(C, H, W)`` of the training images and that of their labels.

    Raises SettingsError for mixed sizes, and if there are no training images or no labels.
    """
    shape, label_shape = dataset.train.shape, dataset.train.label_shape
    if not len(dataset.train):
        raise SettingsError(f"{dataset.path}: has no training images")
    if label_shape is None and shape is not None:
        raise SettingsError(
            f"{dataset.path}: its training images have no labels, or labels of several sizes; training needs one"
        )
    if shape is None or label_shape is None:
        raise SettingsError(
            f"{dataset.path}: its images differ in size; training needs a single size: create the dataset without mixed sizes"
        )
    return shape, label_shape


def mean_of(dataset: Any, subtract_mean: str) -> npt.NDArray[np.float32] | None:
    """Return the mean to subtract: ``(C,)`` for ``pixel``, ``(C, H, W)`` for ``image``, None for ``none``.

    Raises SettingsError if the dataset has no mean image.
    """
    if subtract_mean == "none":
        return None
    mean: npt.NDArray[np.float32] | None = dataset.mean_pixel if subtract_mean == "pixel" else dataset.mean_image
    if mean is None:
        raise SettingsError(
            f"{dataset.path}: has no mean image (train_db/mean.binaryproto); train with {setting('subtract_mean', 'none')}"
        )
    return mean
