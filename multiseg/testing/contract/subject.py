"""What the contract's tests are given by the class that is made of them."""

from __future__ import annotations

from multiseg.testing.bench import Bench


class Subject:
    """Base of the tests of one subject; see multiseg.testing.contract.BackendContract."""

    @classmethod
    def start(cls, threads: int = 1) -> Bench:
        """A new process of the backend, which is the caller's to close."""
        raise NotImplementedError
