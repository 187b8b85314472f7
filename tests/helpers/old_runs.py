"""Runs as earlier versions of multiseg left them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def change_job(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of job.json as if an earlier version had written it, which also had no sums of its snapshots."""
    path = run / "job.json"
    job = json.loads(path.read_text())
    change(job)
    assert job.pop("sums") == "sha256"
    path.write_text(json.dumps(job))
    for sums in run.glob("snapshots/*/sums.json"):
        sums.unlink()
