"""The copy of the network file in a run folder, from which the run is resumed."""

from __future__ import annotations

import warnings
from pathlib import Path

from multiseg.errors import MultisegWarning
from multiseg.model_files import copies, shipped
from multiseg.run.names import JOB, MODEL
from multiseg.run.reading import read_job


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
    named = shipped.find(model)
    own = named is not None and copy.name in [file.name for file in named.files]
    other = model is not None and not own and (Path(model).exists() or Path(model).name != copy.name)
    if other or stored["backend"] != backend or not copy.exists():
        return model
    by_path = model is None and job.get("model_path") and shipped.find(job["model_path"]) is None
    original = Path(job["model_path"]) if by_path else None
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
