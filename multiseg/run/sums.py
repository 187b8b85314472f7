"""SHA-256 sums of a snapshot: of its files, of the history up to it, and of the settings of the run. Damage raises RunError."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from multiseg.errors import MultisegWarning, RunError
from multiseg.files import json_text, parse_json, read_text, sha256_of
from multiseg.run.names import HISTORY, JOB, MODEL, SUMS
from multiseg.run.reading import read_history, read_job
from multiseg.run.schemas import SUMS_VALUES
from multiseg.schema import problem

RECORDED = "sums"  # key of job.json: the snapshots of this run have sums
COPY_AGAIN = "copy the run again, or train again"
TOTAL = "sums"  # key of the file with the sums: the sum of the others
MOVED = {
    "dataset": ("path",),
    "model_path": (),
    "environment": (),
}  # of job.json, may change without a change of the run


def text_of(snapshot: Path, run: Path, rows: int) -> str:
    """Return the content of SUMS: the sums of the files in ``snapshot``, of the first ``rows`` rows of the history, and of the
    settings of ``run``."""
    files = {file.relative_to(snapshot).as_posix(): _of_file(file) for file in _files(snapshot)}
    content = {"files": files, "history": _of_history(run, rows), "rows": rows, "settings": _of_settings(read_job(run))}
    return _text(content)


def verify(snapshot: Path, run: Path) -> None:
    """Raise RunError naming the first file that differs from the sums of a snapshot, or that is missing or surplus.

    A snapshot that was made before there were sums is a MultisegWarning.
    """
    job = read_job(run)  # large if it has a mean image
    content = _read(snapshot, job)
    if content is None:
        return
    actual = {file.relative_to(snapshot).as_posix(): file for file in _files(snapshot)}
    for name in sorted({*content["files"], *actual}):
        if name not in actual:
            raise RunError(f"{snapshot / name}: is missing")
        if name not in content["files"]:
            raise RunError(f"{snapshot / name}: does not belong to this snapshot, its sums do not have it")
        if _of_file(actual[name]) != content["files"][name]:
            raise RunError(f"{snapshot / name}: is damaged: its SHA-256 is not that in {SUMS}")
    if _of_history(run, content["rows"]) != content["history"]:
        raise RunError(
            f"{run / HISTORY}: is damaged: its first {content['rows']} rows are not those with which {snapshot.name} was written"
        )
    if _of_settings(job) != content["settings"]:
        raise RunError(
            f"{run / JOB}: is damaged or was changed: its settings are not those with which {snapshot.name} was written"
        )


def verify_model(run: Path) -> None:
    """Raise RunError naming the first file of the run's network that differs from its sum in job.json, or that is missing.

    A run of an early version has no sums of these files. Other files beside them do not count: Python writes some.
    """
    for name, digest in sorted((read_job(run).get("model_files") or {}).items()):
        path = run / MODEL / name
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise RunError(f"{run / JOB}: is damaged: it names {name!r} as a file of the network; {COPY_AGAIN}")
        if not os.path.isfile(path):  # noqa: PTH113 - False, too, for what cannot be a name
            raise RunError(f"{path}: is missing; {COPY_AGAIN}")
        if _of_file(path) != digest:
            raise RunError(f"{path}: is damaged or was changed: its SHA-256 is not that in {JOB}; {COPY_AGAIN}")


def _read(snapshot: Path, job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the content of the file with the sums, None for a snapshot that was made before there were sums."""
    path = snapshot / SUMS
    if not path.exists():
        if job.get(RECORDED):
            raise RunError(f"{path}: is missing")
        warnings.warn(
            MultisegWarning(
                f"{snapshot}: has no checksums, as an earlier version of multiseg wrote it; damage to it is not noticed"
            ),
            stacklevel=4,
        )
        return None
    try:
        text = read_text(path, follow=False)
        content: dict[str, Any] = parse_json(text)
        sums = {key: content[key] for key in SUMS_VALUES if key != TOTAL}
        whole = problem(content, SUMS_VALUES) is None and text == _text(sums)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise RunError(f"{path}: is damaged")
    return content


def _text(sums: Mapping[str, Any]) -> str:
    """Return the content of the file: the sums, and last the sum of these, which shows damage to this file itself."""
    return json_text({**sums, TOTAL: hashlib.sha256(json_text(sums).encode()).hexdigest()}) + "\n"


def _files(snapshot: Path) -> list[Path]:
    """Return all files of a snapshot but that of the sums; links are files that cannot be verified, and count."""
    return sorted(
        path for path in snapshot.rglob("*") if path != snapshot / SUMS and (path.is_symlink() or not path.is_dir())
    )


def _of_file(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error


def _of_history(run: Path, rows: int) -> str:
    """Return the sum of the values of the first rows: numbers by column, so that columns of later versions do not change it."""
    history = read_history(run / HISTORY)[:rows] if rows else []
    values = [{key: float(row[key]) for key in sorted(row) if row[key] is not None} for row in history]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _of_settings(job: Mapping[str, Any]) -> str:
    """Return the sum of the content of job.json, without paths and the environment."""
    settings = {
        key: {inner: value[inner] for inner in value if inner not in MOVED[key]} if MOVED.get(key) else value
        for key, value in job.items()
        if MOVED.get(key) != ()
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
