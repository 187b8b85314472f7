"""The standard deviation of the images of a split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.reading import Split


def standard_deviation(split: Split) -> NDArray[np.float64]:
    """Return the standard deviation of each channel (C,), RGB, over all pixels of all images of a split that is not empty.

    It is sqrt(mean((x - mean(x))^2)), in the units of the pixels, computed in float64 in the order of the records: sums of
    each image about its own mean are combined by the formula of Chan, Golub and LeVeque (1983), which does not cancel.
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for index in range(len(split)):
        pixels = split.feature(index).astype(np.float64)
        pixels = pixels.reshape(len(pixels), -1)
        own_mean = pixels.mean(axis=1)
        own_squares = np.square(pixels - own_mean[:, None]).sum(axis=1)
        own_count = pixels.shape[1]
        difference = own_mean - mean
        squares = squares + own_squares + difference**2 * (count * own_count / (count + own_count))
        mean = mean + difference * (own_count / (count + own_count))
        count += own_count
    return np.sqrt(squares / count)
