"""Death of a worker, as its program reports it, and the environment of workers."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from multiseg import backend as registry
from multiseg.errors import WorkerError
from multiseg.worker.client import Worker, environment


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


def test_variables_of_the_user_count_more_than_those_of_the_backend(
    fourth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = replace(registry.get(fourth), environment={"OWN": "backend", "OTHER": "backend"})
    monkeypatch.setenv("OWN", "user")
    monkeypatch.delenv("OTHER", raising=False)
    variables = environment(backend, 1)
    assert (variables["OWN"], variables["OTHER"]) == ("user", "backend")
