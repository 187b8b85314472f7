"""The copy of the network file in a run folder, from which the run is resumed."""

from __future__ import annotations

import warnings
from pathlib import Path

from multiseg.errors import MultisegWarning
from multiseg.model_files import choosing, copies, shipped
from multiseg.run.names import JOB, MODEL
from multiseg.run.reading import read_job
from multiseg.worker import choice


def model_to_resume(folder: Path, model: str | Path | None, backend: str) -> str | Path | None:
    """Return the network file to resume the run in ``folder`` with: its own copy if ``model`` is None or a file that is gone.

    ``model`` is returned where it exists, has another name, or the folder has no job.json. A MultisegWarning names the original
    file if it has changed since the run began; the run continues with its copy.
    """
    if not (folder / JOB).is_file():
        return model
    job = read_job(folder)
    stored = job["settings"]
    copy: Path = folder / MODEL / stored["model"]
    if _is_other(model, copy) or stored["backend"] != backend or not copy.exists():
        return model
    stated = job.get("model_path") if model is None else model
    original = None if not stated or shipped.find(stated) is not None else _original(stated, copy)
    if original is not None and original.exists():
        name = copies.changed(original, copy, stored.get("exported"))
        if name is not None:
            warnings.warn(
                MultisegWarning(
                    f"{original.parent / name}: has changed since {folder} began, which is resumed with its own copy, "
                    f"{copy.parent / name}"
                ),
                stacklevel=3,
            )
    return copy


def _is_other(model: str | Path | None, copy: Path) -> bool:
    """Return whether a job's network is read from its own file and not from the run's copy."""
    named = shipped.find(model)
    if model is None or (named is not None and copy.name in [file.name for file in named.files]):
        return False
    file, _, name, arguments = choosing.split(model)
    chosen = choice.read(copy)
    if file.name != chosen.file.name or (name, arguments) != (chosen.name, chosen.arguments):
        return True
    # the copy of an earlier version is the file itself, where a choice would be made of it now
    return file.exists() and (choice.is_choice(copy) or not choice.is_choice(choosing.path_of(model, classes=1)))


def _original(model: str | Path, copy: Path) -> Path | None:
    """Return the network file that a copy was made from, as a choice if the copy is one; None if it is gone."""
    file = choosing.split(model)[0]
    if not file.exists():
        return None
    if not choice.is_choice(copy):
        return file
    chosen = choice.read(copy)
    return choosing.path_of(model, classes=chosen.classes, options=chosen.options)
