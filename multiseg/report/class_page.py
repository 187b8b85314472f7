"""The data of a comparison's sections for classes of pixels: per-class table, confusion matrices, gallery, curves per class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multiseg.dataset.class_colours import background, class_name, palette
from multiseg.report.class_scan import ClassScan
from multiseg.settings.confusion import mean

PICTURE_BYTES = 4_000_000  # limit for the gallery, so that the page can be sent by mail
INPUT_BYTES, MAP_BYTES = 0.6, 0.12  # per pixel of an image (JPEG) and of a class map (PNG), measured on street scenes


@dataclass(frozen=True)
class ClassRow:
    """One row of the per-class table: ``pixels`` labels, and the values of the runs by metric (iou, accuracy, dice)."""

    index: int
    name: str
    colour: str
    pixels: int
    share: float
    values: Mapping[str, tuple[float | None, ...]]

    def best(self, metric: str) -> float | None:
        """Return the best value, to mark it, if several runs have values that are not all equal as they are written."""
        known = [value for value in self.values[metric] if value is not None]
        written = {f"{value:.3f}" for value in known}
        return max(known) if len(written) > 1 else None


def class_rows(scan: ClassScan) -> list[ClassRow]:
    """Return a row for each class; the numbers of labels are those of the first run."""
    tables = [confusion.per_class(scan.labels.names) for confusion in scan.confusions]
    colours = [css_colour(colour) for colour in palette(scan.labels)]
    total = max(scan.confusions[0].total, 1) if scan.confusions else 1
    rows = []
    for index in range(scan.classes):
        cells = [table[index] if index < len(table) else {} for table in tables]
        values = {key: tuple(cell.get(key) for cell in cells) for key in ("iou", "accuracy", "dice")}
        pixels = cells[0].get("pixels", 0)
        rows.append(ClassRow(index, class_name(scan.labels, index), colours[index], pixels, pixels / total, values))
    return rows


def class_means(scan: ClassScan) -> dict[str, tuple[float | None, ...]]:
    """Return the means of the runs over the classes that occur, by metric."""
    return {
        "iou": tuple(mean(one.class_iou) for one in scan.confusions),
        "accuracy": tuple(mean(one.class_accuracy) for one in scan.confusions),
        "dice": tuple(mean(one.class_dice) for one in scan.confusions),
    }


def class_data(scan: ClassScan, side: int) -> dict[str, Any]:
    """Return what the page's script needs: names and colours, confusion matrices, and the pictures as data URIs."""
    from multiseg.pages import pictures

    return {
        "names": [class_name(scan.labels, index) for index in range(scan.classes)],
        "colours": [list(colour) for colour in palette(scan.labels)[: scan.classes]],
        "background": background(scan.labels),
        "ignored": sorted({value for each in scan.seen for value in each.run.ignored}),
        "runs": [each.label for each in scan.seen],
        "confusions": [confusion.counts.tolist() for confusion in scan.confusions],
        "cases": [
            {
                "input": pictures.photo(case.feature, side),
                "target": pictures.class_map(case.target, side),
                "runs": [pictures.class_map(view.classes, side) for view in case.views],
            }
            for case in scan.cases
        ],
    }


def picture_side(images: int, runs: int) -> int:
    """Return the longest side of a picture in the gallery, in pixels, so that all fit in PICTURE_BYTES."""
    per_pixel = max(images, 1) * (INPUT_BYTES + MAP_BYTES * (1 + runs))
    return max(64, min(480, math.isqrt(int(PICTURE_BYTES / per_pixel))))


def css_colour(colour: Sequence[int]) -> str:
    """Return (R, G, B) as a colour in CSS."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
