"""Which cases of a test run every night instead of at every change: those that are slow by nature."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def nightly(cases: Iterable[Any], large: Sequence[Any]) -> list[Any]:
    """The cases as parameters; those among ``large`` run with `pytest -m nightly` only. The others stay in every run."""
    cases = list(cases)
    assert set(large) < set(cases), "a case of each kind stays in every run"
    return [pytest.param(case, marks=pytest.mark.nightly) if case in large else case for case in cases]
