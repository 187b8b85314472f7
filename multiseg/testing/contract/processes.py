"""Tests of the backend's process: its death raises an error in this one, and has no other effect."""

from __future__ import annotations

import os
import signal

import pytest

from multiseg.errors import WorkerError
from multiseg.testing.contract.subject import Subject


class Processes(Subject):
    """Tests of the worker process."""

    def test_its_death_is_an_error_that_names_it(self) -> None:
        bench = self.start()
        try:
            bench.load()
            os.kill(bench.worker.pid, signal.SIGKILL)
            with pytest.raises(WorkerError) as caught:
                bench.step(bench.batch(), 0.0)
        finally:
            bench.close()
        assert bench.backend.title in str(caught.value) and "SIGKILL" in str(caught.value)
