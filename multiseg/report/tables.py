"""The results of a comparison as a table of text, by run or by two properties of the runs, and as CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import mean, stdev

from multiseg.errors import SettingsError, setting
from multiseg.report import verdict
from multiseg.report.facts import HASH_LENGTH, RunFacts
from multiseg.report.side_by_side import SideBySide
from multiseg.settings.metrics import METRICS, Metric, columns, metric_named

PIVOTS = ("dataset", "seed", "backend")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "±": r"$\pm$",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and whether its value is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Headings and rows; the first ``texts`` columns are text, the others numbers."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    texts: int


def results(comparison: SideBySide) -> Table:
    """Return a row for each run: version and metrics."""
    facts = comparison.facts
    metrics = columns(each.final for each in facts)
    best = {metric.key: verdict.marked(facts, metric, comparison.comparable) for metric in metrics}
    rows = tuple(
        (
            Cell(each.label),
            Cell(each.version or "–"),
            *(Cell(metric.text(each.final[metric.key]), each in best[metric.key]) for metric in metrics),
        )
        for each in facts
    )
    return Table(("Run", "Version", *(metric.title for metric in metrics)), rows, 2)


def pivot(comparison: SideBySide, column: str, metric: str | None = None) -> Table:
    """Return a row for each network and backend, and a column for each dataset, seed or backend, of one metric.

    A cell with several runs has their mean and standard deviation (n - 1). ``metric`` is by default the one that ranks the runs.
    Raises SettingsError for another ``column``, an unknown metric, and runs without one.
    """
    if column not in PIVOTS:
        raise SettingsError(f"{setting('pivot', column)}: must be one of {', '.join(PIVOTS)}")
    chosen = metric_named(metric) if metric else verdict.deciding_metric(comparison.facts)
    if chosen is None:
        raise SettingsError(f"{setting('pivot', column)}: the runs have no metric in common; name one, e.g. val_loss")
    columns_of_runs = _COLUMNS[column](comparison.facts)
    rows_of_runs = list(map(_network if column == "backend" else _network_and_backend, comparison.facts))
    cells = list(zip(comparison.facts, rows_of_runs, columns_of_runs, strict=True))
    heads, names = list(dict.fromkeys(columns_of_runs)), list(dict.fromkeys(rows_of_runs))
    grid = [[[run for run, *cell in cells if cell == [name, head]] for head in heads] for name in names]
    means = [[_mean(chosen, runs) for runs in row] for row in grid]
    best = [_best(chosen, [row[at] for row in means]) for at in range(len(heads))]
    rows = tuple(
        (Cell(name), *(Cell(_spread(chosen, runs), value is not None and value == top) for runs, value, top in cells))
        for name, cells in zip(
            names, (zip(*line, best, strict=True) for line in zip(grid, means, strict=True)), strict=True
        )
    )
    title = f"{chosen.title}, by {'network' if column == 'backend' else 'network and backend'}"
    return Table((title, *heads), rows, 1)


def csv_text(comparison: SideBySide) -> str:
    """Return one line for each run with all its figures, unrounded; unknown values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", "name", "backend", "version", "model", "dataset", "seed", "status", "epoch", *METRICS))
    for each in comparison.facts:
        values = (each.final.get(key) for key in METRICS)
        writer.writerow(
            (
                each.label,
                each.run.name,
                each.run.backend,
                each.version,
                each.run.settings["model"],
                each.dataset,
                each.run.settings.get("seed"),
                each.status,
                each.epoch,
                *("" if value is None else value for value in values),
            )
        )
    return text.getvalue()


def table_as_csv(table: Table) -> str:
    """Return the cells of a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.headings)
    writer.writerows([cell.text for cell in row] for row in table.rows)
    return text.getvalue()


def latex(table: Table) -> str:
    """Return a table as a LaTeX ``tabular`` with the rules of the package booktabs; best values are bold."""
    alignment = "l" * table.texts + "r" * (len(table.headings) - table.texts)
    lines = [
        f"\\begin{{tabular}}{{{alignment}}}", r"\toprule", " & ".join(map(_escaped, table.headings)) + r" \\", r"\midrule",
        *(" & ".join(map(_latex_cell, row)) + r" \\" for row in table.rows),
        r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    return f"\\textbf{{{_escaped(cell.text)}}}" if cell.best else _escaped(cell.text)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text.replace("\n", " "))


def _network(facts: RunFacts) -> str:
    return facts.network


def _network_and_backend(facts: RunFacts) -> str:
    return f"{_network(facts)}, {facts.title}"


def _datasets(facts: Sequence[RunFacts]) -> list[str]:
    """Return the folder name of each run's dataset, followed by the start of its hash where datasets of this name differ."""
    names: dict[str, str] = {}  # by content: a dataset that was moved stays the same
    for run in facts:
        names.setdefault(run.content, PurePath(run.dataset).name)
    repeated = {name for name, count in Counter(names.values()).items() if count > 1}
    return [
        f"{name} ({run.content[:HASH_LENGTH]})" if (name := names[run.content]) in repeated else name for run in facts
    ]


# the headings of the runs' columns
_COLUMNS: dict[str, Callable[[Sequence[RunFacts]], list[str]]] = {
    "dataset": _datasets,
    "seed": lambda facts: [f"seed {run.run.settings.get('seed')}" for run in facts],
    "backend": lambda facts: [run.title for run in facts],
}


def _mean(metric: Metric, runs: Sequence[RunFacts]) -> float | None:
    values = [value for each in runs if (value := each.final[metric.key]) is not None]
    return mean(values) if values else None


def _spread(metric: Metric, runs: Sequence[RunFacts]) -> str:
    values = [value for each in runs if (value := each.final[metric.key]) is not None]
    if len(values) < 2:
        return metric.text(values[0] if values else None)
    return f"{metric.text(mean(values))} ± {metric.text(stdev(values))}"


def _best(metric: Metric, values: Sequence[float | None]) -> float | None:
    """Return the best of a column's values; None if the metric ranks none, or there is only one."""
    known = [value for value in values if value is not None]
    return metric.best(known) if metric.better and len(set(known)) > 1 else None
