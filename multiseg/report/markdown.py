"""A comparison as GitHub-flavoured Markdown, for a comment in a review."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from multiseg.report import verdict
from multiseg.report.facts import RunFacts, settings
from multiseg.report.metrics import METRICS, Metric

if TYPE_CHECKING:
    from multiseg.report.comparison import Comparison

COLUMNS = ("val_loss", "iou", "l1", "pixel_accuracy", "seconds", "images_per_second", "peak_memory_mb", "train_seconds")


def write(comparison: Comparison) -> str:
    """Headline, table of figures (the best ones bold), settings that differ."""
    facts = comparison.facts
    metrics = [METRICS[key] for key in COLUMNS]
    best = {metric.key: verdict.marked(facts, metric, comparison.comparable) for metric in metrics}

    def figure(each: RunFacts, metric: Metric) -> str:
        text = metric.text(each.final[metric.key])
        return f"**{text}**" if each in best[metric.key] else text

    body = [[each.label, each.version or "–", *(figure(each, metric) for metric in metrics)] for each in facts]
    parts = [_escaped(comparison.headline), _table(["Run", "Version", *(metric.title for metric in metrics)], body)]
    differing = [row for row in settings(facts) if row.differs]
    if differing:
        parts.append("Settings that differ:")
        parts.append(
            _table(["Setting", *(each.label for each in facts)], [[f"`{row.key}`", *row.values] for row in differing])
        )
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
