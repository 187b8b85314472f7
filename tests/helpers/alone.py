"""A framework alone, without multiseg, in a process of its own, for tests that compare with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiseg import backend as registry


def run(backend: str, code: str, jobs: Sequence[dict[str, Any]], folder: Path) -> None:
    """Run code in the interpreter of a backend; its argument is a JSON file with the jobs."""
    declared = registry.get(backend)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    python = os.environ.get(declared.python_variable, sys.executable)
    done = subprocess.run(
        [python, "-c", code, str(folder / "jobs.json")], capture_output=True, text=True, timeout=200,
        env=os.environ | declared.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-900:]
