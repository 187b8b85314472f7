"""Render a comparison as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files
from typing import Any

import jinja2

from multiseg._version import __version__
from multiseg.pages import templates
from multiseg.pages.numbers import significant
from multiseg.report import verdict
from multiseg.report.agreement import times
from multiseg.report.class_curves import class_curves, class_iou, class_names
from multiseg.report.class_page import class_data, class_means, class_rows, picture_side
from multiseg.report.class_scan import ClassScan, class_scan, has_classes
from multiseg.report.curves import COLOURS, drawn_charts, kept, run_curves, steps_of
from multiseg.report.facts import RunFacts, environment, foreground_text, settings
from multiseg.report.grid import load_grid
from multiseg.report.networks import networks
from multiseg.report.scan import scan
from multiseg.report.side_by_side import SideBySide
from multiseg.run.processes import Processes
from multiseg.settings.metrics import LOSS, METRICS, Metric, columns

MOST_PROCESSES = 4  # of backends at a time; one of TensorFlow takes about half a gigabyte
PICTURE_BYTES = 4_000_000  # limit for the gallery, so that the page can be sent by mail


@dataclass(frozen=True)
class Cell:
    """One cell of the table of results: ``bar`` is the value as a fraction of the largest in its column."""

    value: float | None
    text: str
    best: bool
    note: str
    bar: float | None


@dataclass(frozen=True)
class Page:
    """The HTML text, and the runs that are missing in its pictures, with the reason."""

    text: str
    left_out: dict[str, str]


def render(comparison: SideBySide) -> Page:
    """Render the page. Starts the runs' backends for the pictures, and ends them."""
    facts = comparison.facts
    processes = Processes(MOST_PROCESSES)
    for each in facts:
        each.run.processes = processes
    try:
        if comparison.images or comparison.grid:
            for each in facts[:MOST_PROCESSES]:  # which load their frameworks at the same time
                each.run.begin()
        of_classes = class_scan(facts, comparison.images) if comparison.images and has_classes(facts) else None
        of_images = scan(facts, comparison.images) if comparison.images and not of_classes else None
        grid = load_grid(comparison.grid, facts) if comparison.grid else None
        trained = networks(facts) if comparison.images or comparison.grid else None
    finally:
        for each in facts:
            each.run.close()
            each.run.processes = None
    seen = of_classes or of_images
    curves = _curves(facts)
    deciding = verdict.deciding_metric(facts)
    template = _environment(facts).get_template("page.html.j2")
    text = template.render(
        comparison=comparison,
        facts=facts,
        deciding=deciding,
        leaders=verdict.marked(facts, deciding, comparison.comparable) if deciding else [],
        metrics=METRICS,
        columns=columns(each.final for each in facts),
        foreground=foreground_text(facts),
        cell=lambda each, metric: _cell(comparison, each, metric),
        curves=curves,
        class_curves=curves["classes"],
        shared_loss=verdict.share_loss(facts),
        agreement=comparison.agreement,
        partings=comparison.partings,
        times=times,
        scan=of_images,
        class_scan=of_classes,
        seen=seen,
        class_rows=class_rows(of_classes) if of_classes else [],
        class_means=class_means(of_classes) if of_classes else {},
        class_data=_class_data(of_classes),
        are_classes=has_classes(facts),
        side=_side(comparison),
        grid=grid,
        networks=trained,
        settings=settings(facts),
        environment=environment(facts),
        now=datetime.now(timezone.utc),
        version=__version__,
    )
    left_out = dict(seen.unseen) if seen else {}
    left_out |= {each.label: output for each, output in grid.outputs if isinstance(output, str)} if grid else {}
    return Page(text, {label: first_line(reason) for label, reason in left_out.items()})


def _curves(facts: Sequence[RunFacts]) -> dict[str, Any]:
    classes = [class_iou(each.run.path, each.run.history) for each in facts]
    steps = steps_of([len(each.run.history) for each in facts], len(class_names(classes)))
    runs = [
        run_curves(number, each.label, each.loss, each.run.history, step)
        for number, (each, step) in enumerate(zip(facts, steps, strict=True))
    ]
    return {
        "runs": runs,
        "charts": drawn_charts(runs),
        "classes": class_curves(
            [kept(rows, step) for rows, step in zip(classes, steps, strict=True)], [each.run.labels for each in facts]
        ),
        "shared_loss": verdict.share_loss(facts),
    }


def _class_data(scan: ClassScan | None) -> dict[str, Any] | None:
    return class_data(scan, picture_side(len(scan.cases), len(scan.seen))) if scan else None


def _environment(facts: Sequence[RunFacts]) -> jinja2.Environment:
    from multiseg.pages import pictures

    loaded = templates.environment("multiseg.report")
    numbers = {each.label: number for number, each in enumerate(facts)}
    loaded.filters["first_line"] = first_line
    loaded.filters["figure"] = significant
    loaded.filters["percent"] = lambda part: f"{100 * part:.1f}\u00a0%"
    loaded.filters["colour"] = lambda each: f"var(--run-{numbers[each.label] % COLOURS})"
    loaded.globals.update(
        picture=pictures.picture,
        embedded=pictures.embedded,
        image=pictures.image,
        range_of=pictures.range_of,
        error_map=pictures.error_map,
        split_map=pictures.split_map,
    )
    # our own files, so they need no escaping; they are text inside <style> and <script>
    loaded.globals["asset"] = _asset
    return loaded


def _asset(name: str) -> str:
    package = "multiseg.pages" if name == "page.css" else "multiseg.report"
    return files(package).joinpath(name).read_text(encoding="utf-8")


def first_line(text: str) -> str:
    """Return the first line of an error message, without the output of a crashed process."""
    return text.strip().partition("\n")[0]


def _cell(comparison: SideBySide, facts: RunFacts, metric: Metric) -> Cell:
    value = facts.final[metric.key]
    note = ""
    best = facts.best.get(metric.key)
    if metric.better and best and metric.text(best.value) != metric.text(value):
        note = f"{metric.text(best.value)} at epoch {best.epoch:g}"
    elif metric.key == LOSS:
        note = facts.loss
    largest = max((each.final[metric.key] or 0.0 for each in comparison.facts), default=0.0)
    return Cell(
        value=value,
        text=metric.text(value),
        best=facts in verdict.marked(comparison.facts, metric, comparison.comparable),
        note=note,
        bar=value / largest if value is not None and largest > 0 and metric.has_bar else None,
    )


def _side(comparison: SideBySide) -> int:
    """Return the longest side of a picture in the gallery, in pixels, so that all fit in PICTURE_BYTES."""
    pictures = max(1, comparison.images * (2 + 2 * len(comparison.facts)))
    return max(48, min(320, math.isqrt(PICTURE_BYTES // pictures // 2)))
