"""Write a comparison as GitHub-flavoured Markdown, for a review comment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multiseg.pages.numbers import significant
from multiseg.report.agreement import Measure, times
from multiseg.report.facts import settings
from multiseg.report.side_by_side import SideBySide
from multiseg.report.tables import Table, results

AGREEMENT = ("Metric", "Backends differ by", "Seeds differ by", "Standard deviation", "Ratio", "Most along the curves")


def write(comparison: SideBySide) -> str:
    """Return the headline, the table of metrics (best values bold), differences of backends and seeds, and of settings."""
    facts = comparison.facts
    parts = [_escaped(comparison.headline), table(results(comparison))]
    partings = comparison.partings
    if partings:
        parts.append(
            "\n".join(["Histories of one seed:", "", *(f"- {_escaped(str(parting))}" for parting in partings)])
        )
    agreement = comparison.agreement
    if agreement:
        parts.append(_escaped(" ".join([agreement.headline, agreement.basis, *agreement.missing])))
        parts += [_table(AGREEMENT, map(measured, agreement.measures))] * bool(agreement.measures)
    differing = [row for row in settings(facts) if row.differs]
    if differing:
        parts.append("Settings that differ:")
        parts.append(
            _table(["Setting", *(each.label for each in facts)], [[f"`{row.key}`", *row.values] for row in differing])
        )
    return "\n\n".join(parts) + "\n"


def table(cells: Table) -> str:
    """Return a table as Markdown; best values are bold."""
    return _table(
        cells.headings, [[f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in cells.rows]
    )


def measured(measure: Measure) -> list[str]:
    """Return a row of the table of differences, with the columns AGREEMENT."""
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
