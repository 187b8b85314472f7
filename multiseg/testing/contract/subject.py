"""The base class of the contract's tests."""

from __future__ import annotations

from multiseg.testing.bench import Bench


class Subject:
    """Base class of the tests of one subject; see multiseg.testing.contract.BackendContract."""

    @classmethod
    def start(cls, threads: int = 1) -> Bench:
        """Start a new process of the backend; the caller must close it."""
        raise NotImplementedError
