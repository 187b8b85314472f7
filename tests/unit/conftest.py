"""The fourth backend: NumPy's, installed for a test as a distribution on the path. The core needs no framework."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

FOURTH = Path(__file__).parents[1] / "fourth_backend"


@pytest.fixture
def fourth(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a backend in NumPy, which is there for the test and the programs it starts."""
    monkeypatch.syspath_prepend(FOURTH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FOURTH), os.environ.get("PYTHONPATH")])))
    return "numpy"


class _Here:
    """Reads and writes files as a backend's process does, in this one."""

    def call(self, method: str, module: str, function: str, arguments: dict[str, Any]) -> Any:
        assert method == "read"
        return getattr(importlib.import_module(module), function)(**arguments)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions run their frameworks in this process."""
    monkeypatch.setattr("multiseg.conversion.frameworks.Frameworks._worker", lambda self, backend: _Here())
