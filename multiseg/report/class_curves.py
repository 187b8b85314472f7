"""The IoU of each class over the epochs, which training records in events.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multiseg.dataset.class_colours import class_name, palette
from multiseg.dataset.labels import Labels
from multiseg.files import parse_json, read_bytes
from multiseg.pages.numbers import number
from multiseg.run import names

ClassIou = list[dict[str, Any] | None]


def class_curves(recorded: Sequence[ClassIou], labels: Sequence[Labels | None]) -> dict[str, Any] | None:
    """Return the IoU of each class after each epoch; None if no run has recorded it.

    ``recorded`` are the values of each run (:func:`class_iou`), ``labels`` describes those of its dataset. In the result
    ``names`` are the classes, ``colours`` theirs, ``runs`` a list for each run of the rows of its history: a list of values by
    class, or None.
    """
    present = class_names(recorded)
    if not present:
        return None
    return {
        "names": present,
        "colours": class_colours(labels, present),
        "runs": [class_rows(rows, present) for rows in recorded],
    }


def class_names(recorded: Sequence[ClassIou]) -> list[str]:
    """Return the names of all classes with a recorded IoU."""
    return list(dict.fromkeys(name for rows in recorded for row in rows if row for name in row))


def class_rows(rows: ClassIou, present: Sequence[str]) -> list[list[float | None] | None]:
    """Return the IoU of the classes of these names, in their order, for each row of a run's history."""
    return [[_short(row.get(name)) for name in present] if row else None for row in rows]


def class_colours(labels: Sequence[Labels | None], present: Sequence[str]) -> list[list[int]]:
    """Return the colours (R, G, B) of classes by name: those of the first run that has the class, grey if none describes it."""
    colours: dict[str, list[int]] = {}
    for one in labels:
        described = one or Labels()
        for index, colour in enumerate(palette(described)):
            colours.setdefault(class_name(described, index), list(colour))
    return [colours.get(name, [128, 128, 128]) for name in present]


def class_iou(folder: Path, history: Sequence[Mapping[str, Any]]) -> ClassIou:
    """Return the IoU by class name for every row of a run's history, from events.jsonl; None for rows without it."""
    by_iteration: dict[Any, dict[str, Any]] = {}
    try:
        lines = read_bytes(folder / names.EVENTS, follow=False).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if '"class_iou"' not in line:
            continue
        try:
            event = parse_json(line)
        except ValueError:  # the last line of a training that was killed
            continue
        if isinstance(event, dict) and isinstance(event.get("class_iou"), dict):
            by_iteration[number(event.get("iteration"))] = event["class_iou"]  # a resumed training repeats some
    return [by_iteration.get(row["iteration"]) for row in history]


def _short(value: object) -> float | None:
    known = number(value)
    return None if known is None else float(f"{known:.4g}")
