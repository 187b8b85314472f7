"""Read the plain data of a run folder; multiseg.run.run adds testing with its network."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path, PurePath
from typing import Any

from multiseg.errors import RunError
from multiseg.files import read_text
from multiseg.run.names import COLUMNS, FORMAT, JOB, MODEL


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of history.csv as numbers, with None for an empty cell or a missing column.

    Raises RunError if the file cannot be read as a history.
    """
    try:
        lines = csv.DictReader(io.StringIO(read_text(path)))
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
        job: Any = json.loads(read_text(folder / JOB))
    except FileNotFoundError:
        raise RunError(f"{folder}: is not a run folder (it has no {JOB})") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{folder / JOB}: cannot be read: {error}") from error
    if not isinstance(job, dict) or job.get("format") != FORMAT:
        number = job.get("format") if isinstance(job, dict) else None
        raise RunError(f"{folder / JOB}: format {number!r}; this multiseg reads format {FORMAT}")
    _check_kinds(folder / JOB, job)
    return job


def _check_kinds(path: Path, job: dict[str, Any]) -> None:
    """Raise RunError naming the first value of job.json that is missing or of another kind than a training writes."""

    def check(valid: bool, key: str, value: object, kind: str) -> None:
        if not valid:
            raise RunError(
                f"{path}: {key} is {str(value)[:60]!r}, not {kind}; the file is damaged, or is not of multiseg"
            )

    for key in ("settings", "environment", "dataset", "network"):
        check(isinstance(job.get(key), dict), key, job.get(key), "an object")
    settings, dataset = job["settings"], job["dataset"]
    for where, values, key in (
        ("settings", settings, "backend"), ("settings", settings, "model"),
        ("dataset", dataset, "path"), ("dataset", dataset, "content_hash"),
    ):  # fmt: skip
        check(isinstance(values.get(key), str), f"{where}.{key}", values.get(key), "a text")
    for key in ("threads", "epochs", "batch_size", "val_batch_size", "seed"):
        value = settings.get(
            key, 1 if key in ("epochs", "batch_size") else None
        )  # a comparison needs no more than the others
        check(isinstance(value, int) and not isinstance(value, bool), f"settings.{key}", value, "a whole number")
    for key in ("input_shape", "label_shape"):
        shape = job.get(key)
        valid = (
            isinstance(shape, list) and len(shape) == 3 and all(isinstance(size, int) and size > 0 for size in shape)
        )
        check(valid, key, shape, "three positive whole numbers")
    check(
        isinstance(job["network"].get("parameters"), dict),
        "network.parameters",
        job["network"].get("parameters"),
        "an object",
    )
    for key in ("model", "exported"):
        name = settings.get(key)
        inside = name is None or (isinstance(name, str) and "\0" not in name and PurePath(name).name == name != "..")
        check(inside, f"settings.{key}", name, f"the name of a file in {MODEL}/ of the run")
