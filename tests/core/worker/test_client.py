"""Death of a worker, as its program reports it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from multiseg import backend as registry
from multiseg.errors import WorkerError
from multiseg.worker.client import Worker


@pytest.mark.parametrize("log", ["kept", "removed", "none"])
def test_a_death_is_reported_with_what_was_printed_also_without_the_log(fourth: str, log: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("of an earlier worker\n")
    with Worker(registry.get(fourth), log=None if log == "none" else path) as worker:
        worker.call("memory")
        os.write(worker._log.fileno(), b"something terrible\n")
        if log == "removed":
            path.unlink()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"(?s)SIGKILL.*something terrible") as caught:
            worker.call("memory")
    assert "an earlier worker" not in str(caught.value)
