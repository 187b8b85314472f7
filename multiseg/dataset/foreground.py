"""The foreground of binary masks: which side of a threshold the metrics count as the object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from multiseg.errors import DatasetError, SettingsError, setting

Side = Literal["dark", "light"]
SIDES: tuple[Side, ...] = get_args(Side)
_FEW = 16  # values of masks that are numbers
THRESHOLD = 128  # half of the 0..255 range: values below it are foreground, black on white as in the tutorial

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Foreground:
    """``dark``: values below ``threshold`` are foreground; ``light``: all others. Values that are not a number are background.

    ``output_threshold`` is that of a network's outputs if they are logits, e.g. 0 for masks of 0 and 1; None if outputs are on
    the scale of the labels. ``known`` is False if the threshold does not separate an object in the labels and none is stated:
    metrics of the foreground are None.
    """

    side: Side = "dark"
    threshold: float = THRESHOLD
    output_threshold: float | None = None
    known: bool = True

    @classmethod
    def of(cls, value: Foreground | float) -> Foreground:
        """Return a foreground as it is; of a threshold the dark side."""
        return value if isinstance(value, Foreground) else cls(threshold=value)

    def in_labels(self, labels: NDArray[Any]) -> Mask:
        """Return which of the labels are foreground."""
        return self._in(labels, self.threshold)

    def in_outputs(self, outputs: NDArray[Any]) -> Mask:
        """Return which of a network's outputs are foreground."""
        return self._in(outputs, self.threshold if self.output_threshold is None else self.output_threshold)

    def _in(self, values: NDArray[Any], threshold: float) -> Mask:
        result: Mask = values < threshold if self.side == "dark" else values >= threshold
        return result

    def __str__(self) -> str:
        """Return the rule in words."""
        if not self.known:
            return "of the foreground, which is not known"
        return f"{'below' if self.side == 'dark' else 'from'} {self.threshold:g}"


DARK = Foreground()
UNKNOWN = Foreground(known=False)  # e.g. of class numbers
BINARY = Foreground("light", 0.5)  # of masks of 0 and 1, where 1 is the object


def check_foreground(requested: Any) -> None:
    """Raise SettingsError unless ``requested`` is dark, light, a number of 0 to 255, or None."""
    number = isinstance(requested, (int, float)) and not isinstance(requested, bool) and 0 <= requested <= 255
    if requested is not None and requested not in SIDES and not number:
        raise SettingsError(
            f"{setting('foreground', requested)}: choose dark, light, or the value of the object in the masks, 0 to 255"
        )


def foreground_of_stored(labels: Iterable[NDArray[Any] | None]) -> Foreground:
    """Return the foreground of the labels of a dataset that does not state it: dark, or 1 in masks of 0 and 1.

    It is unknown if no label has values on both sides of 128 although they differ. Reads up to the first label that has.
    """
    counts = np.zeros(256, np.int64)
    for label in labels:
        if label is None or label.dtype != np.uint8:
            return DARK
        counts += np.bincount(label.ravel(), minlength=256)
        if counts[:THRESHOLD].any() and counts[THRESHOLD:].any():
            return DARK
    values = np.flatnonzero(counts).tolist()
    return BINARY if values == [0, 1] else DARK if len(values) < 2 else UNKNOWN


def foreground_of(requested: Side | float | None, counts: NDArray[np.int64], folder: str) -> Foreground:
    """Return the foreground of masks whose values occur ``counts`` (256,) times.

    None chooses dark, as in the tutorial, and 1 in masks of 0 and 1; the foreground is unknown if all values are on one side of
    128. Raises DatasetError, which names the ``folder`` of the masks, if that is ambiguous or if the requested value is not an
    end of the masks' values.
    """
    values = np.flatnonzero(counts).tolist()
    low, high = (values[0], values[-1]) if values else (0, 255)
    # the middle of 0..255 unless all values are on one side of it
    threshold: float = THRESHOLD if low < THRESHOLD <= high else (low + high) / 2
    if requested is None:
        if values == [0, 1]:
            return BINARY
        if len(values) == 2 and threshold != THRESHOLD:
            raise DatasetError(
                f"{folder}: its masks have the values {low} and {high}; state which one is the object with "
                f"{setting('foreground', high)} or {setting('foreground', low)}"
            )
        return DARK if threshold == THRESHOLD or low == high else UNKNOWN
    if requested in SIDES:
        return Foreground(requested, threshold)  # type: ignore[arg-type]
    if requested not in (low, high) or low == high:
        raise DatasetError(
            f"{folder}: its masks have values from {low} to {high}, and {setting('foreground', requested)} is neither of these; "
            f"choose one of them, or map the values with {setting('label_map')}"
        )
    if 2 < len(values) <= _FEW:  # numbers, of which one is the object; more values are those of smooth edges
        threshold = (low + values[1]) / 2 if requested == low else (values[-2] + high) / 2
    return Foreground("dark" if requested == low else "light", threshold)
