"""The copy of a network file that a run keeps, with all files that belong to it: where it is in a run folder."""

from __future__ import annotations

from pathlib import Path

MODEL = "model"  # the folder of the copy
JOB = "job.json"  # beside it


def is_of_run(file: Path) -> bool:
    """Return whether a file belongs to the complete copy that a run keeps."""
    return any((folder.parent / JOB).is_file() and folder.name == MODEL for folder in file.resolve().parents)
