"""Check the values of a dataset's labels, and count them by class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.label_statistics import VALUES
from multiseg.dataset.labels import Labels
from multiseg.network import CLASSES


@dataclass
class LabelCheck:
    """The values of the labels of one database, (256,) counts, and the others, of labels that are not 8-bit numbers."""

    labels: Labels
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(VALUES, np.int64))
    others: int = 0
    low: float = np.inf
    high: float = -np.inf

    def add(self, label: NDArray[Any]) -> str | None:
        """Count the values of a label; return what is wrong with it, None for nothing."""
        if not label.size:
            return None
        self.low, self.high = min(self.low, float(label.min())), max(self.high, float(label.max()))
        if label.dtype != np.uint8:
            whole = (label >= 0) & (label < VALUES) & (label == np.floor(label))
            self.others += int((~whole).sum())
            label = label[whole].astype(np.uint8)
        counts = np.bincount(label.ravel(), minlength=VALUES)
        self.counts += counts
        names, ignore = self.labels.names, self.labels.ignore
        if self.labels.kind != CLASSES or not names:
            return None
        wrong = [value for value in np.flatnonzero(counts).tolist() if value >= len(names) and value != ignore]
        if not wrong:
            return None
        pixels = int(counts[wrong].sum())
        return (
            f"has {pixels} pixels of class {', '.join(map(str, wrong[:5]))}, which is none of the {len(names)} classes; create "
            "the dataset with its name among the classes, or with a label map"
        )

    def to_json(self) -> dict[str, Any]:
        """Return how often each value occurs."""
        plain: dict[str, Any] = {str(value): int(self.counts[value]) for value in np.flatnonzero(self.counts).tolist()}
        return plain | ({"others": self.others} if self.others else {})


def label_lines(labels: Labels, checks: dict[str, LabelCheck]) -> list[str]:
    """Return a description of the labels in lines: the pixels of each class, or the range and the foreground of images."""
    used = {name: one for name, one in checks.items() if one.counts.any() or one.others}
    if not used:
        return []
    low, high = min(one.low for one in used.values()), max(one.high for one in used.values())
    if labels.kind != CLASSES:
        total = sum(int(one.counts.sum()) for one in used.values())
        inside = labels.foreground.in_labels(np.arange(VALUES))
        part = sum(int(one.counts[inside].sum()) for one in used.values()) / max(total, 1)
        rule = f"{labels.foreground}, {part:.1%} of the values" if labels.foreground.known else "not known"
        return [f"labels: images, {low:g} to {high:g}; foreground of binary masks: {rule}"]
    lines = [f"labels: classes, ignored: {'none' if labels.ignore is None else labels.ignore}"]
    values = sorted({value for one in used.values() for value in np.flatnonzero(one.counts).tolist()})
    for value in sorted({*values, *range(len(labels.names))}):
        name = labels.names[value] if value < len(labels.names) else "ignored" if value == labels.ignore else "unknown"
        parts = [
            f"{split.partition('_')[0]} {int(one.counts[value]):,} ({one.counts[value] / max(one.counts.sum(), 1):.2%})"
            for split, one in used.items()
        ]
        lines.append(f"  {value:3} {name}: {', '.join(parts)}")
    return lines
