"""The programs in docs/upstream-faults.md show faults of the frameworks, and still do with the tested versions."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from multiseg import backend as registry

PAGE = Path(__file__).parents[2] / "docs" / "upstream-faults.md"
PROGRAM = re.compile(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n# (\w+)\n(.*?)^```$", re.M | re.S)
PROGRAMS = {title: (backend, code) for title, backend, code in PROGRAM.findall(PAGE.read_text())}

pytestmark = [pytest.mark.needs("caffe", "tensorflow", "torch"), pytest.mark.nightly]


@pytest.mark.parametrize("title", PROGRAMS)
def test_a_fault_is_still_there(title: str) -> None:
    name, code = PROGRAMS[title]
    backend = registry.get(name)
    assert "multiseg" not in code
    done = subprocess.run(
        [backend.python, "-c", code], capture_output=True, text=True, timeout=200,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr[-500:]
