"""Tests here share worker processes."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _lent_workers(lent_workers: None) -> None:
    """See lent_workers in tests/conftest.py."""
