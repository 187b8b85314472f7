"""Write a comparison as GitHub-flavoured Markdown, for a review comment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multiseg.pages.numbers import significant
from multiseg.report import verdict
from multiseg.report.agreement import Measure, times
from multiseg.report.facts import RunFacts, settings
from multiseg.report.side_by_side import SideBySide
from multiseg.settings.metrics import Metric, columns

AGREEMENT = ("Metric", "Backends differ by", "Seeds differ by", "Standard deviation", "Ratio", "Most along the curves")


def write(comparison: SideBySide) -> str:
    """Return the headline, the table of metrics (best values bold), differences of backends and seeds, and of settings."""
    facts = comparison.facts
    metrics = columns(each.final for each in facts)
    best = {metric.key: verdict.marked(facts, metric, comparison.comparable) for metric in metrics}

    def figure(each: RunFacts, metric: Metric) -> str:
        text = metric.text(each.final[metric.key])
        return f"**{text}**" if each in best[metric.key] else text

    body = [[each.label, each.version or "–", *(figure(each, metric) for metric in metrics)] for each in facts]
    parts = [_escaped(comparison.headline), _table(["Run", "Version", *(metric.title for metric in metrics)], body)]
    agreement = comparison.agreement
    if agreement:
        parts.append(_escaped(" ".join([agreement.headline, agreement.basis, *agreement.missing])))
        parts += [_table(AGREEMENT, map(_measured, agreement.measures))] * bool(agreement.measures)
    differing = [row for row in settings(facts) if row.differs]
    if differing:
        parts.append("Settings that differ:")
        parts.append(
            _table(["Setting", *(each.label for each in facts)], [[f"`{row.key}`", *row.values] for row in differing])
        )
    return "\n\n".join(parts) + "\n"


def _measured(measure: Measure) -> list[str]:
    last, widest = measure.last, measure.widest
    ratio = "–" if last.ratio is None else significant(last.ratio, 2)
    along = f"{significant(100 * widest.relative, 2)} %"
    along += f" after epoch {widest.epoch:g}, {times(widest)}" if widest.gap else ""
    return [measure.metric.title, *(significant(v, 3) for v in (last.gap, last.spread, last.deviation)), ratio, along]


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
