"""Read the plain data of a run folder; multiseg.run.run adds testing with its network."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from multiseg.errors import RunError
from multiseg.files import read_json, read_text
from multiseg.run.names import COLUMNS, FORMAT, JOB, SUMMARY
from multiseg.run.schemas import JOB_VALUES, SUMMARY_VALUES
from multiseg.schema import problem


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of history.csv as numbers, with None for an empty cell or a missing column.

    Raises RunError if the file cannot be read as a history.
    """
    try:
        lines = csv.DictReader(io.StringIO(read_text(path, follow=False)))
        rows = [{key: float(cell) if cell else None for key, cell in row.items()} for row in lines]
        counts = [{key: _whole(row[key]) for key in ("epoch", "iteration")} for row in rows]
        # a run made before a metric was added has no such column
        return [{**dict.fromkeys(COLUMNS), **row, **count} for row, count in zip(rows, counts, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        raise RunError(f"{path}: cannot be read as a run's history ({error})") from error


def _whole(number: float | None) -> int | float:
    number = number or 0
    return int(number) if number == int(number) else number


def is_run(path: Path) -> bool:
    """Return whether ``path`` is a run folder."""
    return (path / JOB).is_file()


def read_job(folder: Path) -> dict[str, Any]:
    """Return the content of job.json.

    Raises RunError if ``folder`` is not a run folder, or job.json has another format or values of another kind, or names a
    network file outside the run.
    """
    try:
        job: Any = read_json(folder / JOB, follow=False)
    except FileNotFoundError:
        raise RunError(f"{folder}: is not a run folder (it has no {JOB})") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / JOB}: cannot be read: {error}") from error
    if not isinstance(job, dict) or job.get("format") != FORMAT:
        number = job.get("format") if isinstance(job, dict) else None
        raise RunError(f"{folder / JOB}: format {number!r}; this multiseg reads format {FORMAT}")
    difference = problem(job, JOB_VALUES)
    if difference is not None:
        raise RunError(f"{folder / JOB}: {difference}; the file is damaged, or is not of multiseg")
    return job


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the content of summary.json. Raises RunError if it cannot be read, or has values of another kind."""
    path = folder / SUMMARY
    try:
        summary: Any = read_json(path, follow=False)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
    difference = problem(summary, SUMMARY_VALUES)
    if difference is not None:
        raise RunError(f"{path}: {difference}; the file is damaged, or is not of multiseg")
    content: dict[str, Any] = summary
    return content
