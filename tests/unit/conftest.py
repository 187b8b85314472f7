"""The fourth backend: NumPy's, installed for a test as a distribution on the path. The core needs no framework."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOURTH = Path(__file__).parents[1] / "fourth_backend"


@pytest.fixture
def fourth(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a backend in NumPy, which is there for the test and the programs it starts."""
    monkeypatch.syspath_prepend(FOURTH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FOURTH), os.environ.get("PYTHONPATH")])))
    return "numpy"
