"""A process for each backend: what happens when it dies, when the program dies, and where its framework is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import multiseg
from helpers import lending
from helpers.processes import alive, gone
from multiseg import backend as registry
from multiseg.cli import main
from multiseg.errors import BackendUnavailable, WorkerError
from multiseg.worker.client import Worker


@pytest.fixture(autouse=True)
def nobody_elses() -> None:
    """The workers that these tests find are their own."""
    lending.end()


def test_a_killed_worker_is_a_clear_error_and_leaves_nothing(backend: str, dataset: Any, tmp_path: Path) -> None:
    pids = []

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "step" and not pids:
            pids.append(worker_of(os.getpid()))
            os.kill(pids[0], signal.SIGKILL)

    with pytest.raises(WorkerError) as caught:
        multiseg.Job(dataset=dataset, backend=backend, epochs=2).train(tmp_path / "run", progress=kill)
    message = str(caught.value)
    assert registry.get(backend).title in message and "SIGKILL" in message and "worker.log" in message
    assert not alive(pids[0])
    assert multiseg.Run.open(tmp_path / "run").summary["status"] == "failed"


def worker_of(pid: int) -> int:
    """The process id of the one worker that ``pid`` started."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    (found,) = [child for child in children if "boot.py" in Path(f"/proc/{child}/cmdline").read_text()]
    return found


@pytest.mark.first_backend
def test_a_crash_tells_the_last_lines_that_were_printed(backend: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Worker(registry.get(backend), log=log) as worker:
        log.write_bytes(log.read_bytes() + b"F1122 something terrible\n")
        worker.result(worker.submit("memory"))
        os.kill(worker.pid, signal.SIGSEGV)
        with pytest.raises(WorkerError, match=r"(?s)SIGSEGV.*something terrible"):
            worker.call("memory")


def test_no_worker_outlives_its_program(backend: str, dataset: Any, tmp_path: Path) -> None:
    code = (
        "import multiseg, sys\n"
        f"multiseg.Job(dataset={str(dataset.path)!r}, backend={backend!r}, epochs=1000).train({str(tmp_path / 'run')!r}, "
        "progress=lambda event: print(event['event'], flush=True))"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    for line in program.stdout:
        if line.strip() == "step":
            break
    worker = worker_of(program.pid)
    scratch = Path(next(
        part.partition("=")[2] for part in Path(f"/proc/{worker}/environ").read_text().split("\0") if part.startswith("TMPDIR=")
    ))  # fmt: skip
    assert alive(worker) and scratch.is_dir()
    program.kill()
    program.wait()
    assert gone(worker)
    assert not scratch.exists()


@pytest.mark.first_backend
def test_a_stopped_worker_ends_with_its_program(backend: str) -> None:
    code = (
        "import time\nfrom multiseg import backend\nfrom multiseg.worker.client import Worker\n"
        f"worker = Worker(backend.get({backend!r}))\nprint(worker.pid, flush=True)\ntime.sleep(60)"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    worker = int(program.stdout.readline())
    os.kill(worker, signal.SIGSTOP)
    program.kill()
    program.wait()
    assert gone(worker)


@pytest.mark.first_backend
def test_a_stopped_worker_can_be_closed(backend: str) -> None:
    worker = Worker(registry.get(backend))
    os.kill(worker.pid, signal.SIGSTOP)
    worker.close()
    assert not alive(worker.pid)


@pytest.mark.first_backend
def test_calls_wait_for_a_worker_that_is_starting(backend: str) -> None:
    """From several threads, each of which may be the first."""
    with Worker(registry.get(backend), wait=False) as worker, ThreadPoolExecutor(4) as threads:
        peaks = [threads.submit(worker.call, "memory") for _ in range(3)]
        assert threads.submit(lambda: worker.probed).result()["version"]
        assert all(peak.result() > 0 for peak in peaks)


@pytest.mark.first_backend
def test_a_worker_that_is_starting_can_be_closed(backend: str) -> None:
    worker = Worker(registry.get(backend), wait=False)
    worker.close()
    assert not alive(worker.pid)
    with pytest.raises(BackendUnavailable, match="the worker is closed"):
        worker.call("memory")


@pytest.mark.first_backend
def test_an_interrupt_while_a_worker_starts_leaves_no_process(backend: str) -> None:
    code = (
        "import os, signal, sys\nfrom multiseg import backend\nfrom multiseg.worker.client import Worker\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def interrupt(event, arguments):\n"
        "    if event == 'subprocess.Popen':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.addaudithook(interrupt)\n"
        "try:\n"
        f"    Worker(backend.get({backend!r}))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', open(f'/proc/self/task/{os.getpid()}/children').read(), flush=True)\n"
        "    sys.stdin.read()"
    )
    pipes: Any = dict.fromkeys(["stdin", "stdout"], subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as program:
        assert program.stdout is not None
        word, *children = program.stdout.readline().split()
        assert word == "interrupted"
        assert all(gone(int(child)) for child in children)  # while the program still runs


def test_a_python_without_the_framework_is_one_import_error(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    venv.create(tmp_path / "empty", with_pip=False)
    declared = registry.get(backend)
    monkeypatch.setenv(declared.python_variable, str(tmp_path / "empty/bin/python"))
    with pytest.raises(ImportError) as caught:
        Worker(declared)
    assert isinstance(caught.value, BackendUnavailable)
    starting = Worker(declared, wait=False)
    with pytest.raises(BackendUnavailable, match="No module named"):
        starting.call("memory")
    assert starting.closed
    for words in (repr(backend), declared.install, declared.python_variable, "No module named"):
        assert words in str(caught.value)
    for other in {*registry.names()} - {backend}:  # which would start otherwise
        monkeypatch.setenv(registry.get(other).python_variable, "/no/such/python")
    with pytest.raises(SystemExit) as ended:
        main(["backends", "--json"])
    assert ended.value.code == 0
    found = {status["name"]: status for status in json.loads(capsys.readouterr().out)}[backend]
    assert not found["available"] and declared.install in found["problem"]


def test_a_python_that_is_not_there_is_named(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = registry.get(backend)
    monkeypatch.setenv(declared.python_variable, "/no/such/python")
    with pytest.raises(BackendUnavailable, match=f"{declared.python_variable}=/no/such/python"):
        Worker(declared)


@pytest.mark.first_backend
@pytest.mark.parametrize("wait", [True, False])
def test_a_python_that_ends_at_once(wait: bool, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it ends before or after the first message is sent."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such library; exit 3\n")
    python.chmod(0o755)
    declared = registry.get(backend)
    monkeypatch.setenv(declared.python_variable, str(python))
    for _ in range(10):
        with pytest.raises(BackendUnavailable, match=r"(?s)exit status 3.*no such library"):
            Worker(declared, wait=wait).call("memory")


@pytest.mark.needs("caffe", "tensorflow")
def test_caffe_trains_in_a_program_that_has_imported_tensorflow(dataset: Any, tmp_path: Path) -> None:
    """In one process that is a segmentation fault."""
    code = (
        "import tensorflow, multiseg\n"
        f"run = multiseg.Job(dataset={str(dataset.path)!r}, backend='caffe', epochs=1).train({str(tmp_path / 'run')!r})\n"
        "assert run.history[-1]['l1'] < 200\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.needs("caffe")
def test_caffe_may_live_in_an_interpreter_of_its_own(
    dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has pycaffe and what pycaffe needs, but not multiseg."""
    python = tmp_path / "other/bin/python"
    venv.create(tmp_path / "other", with_pip=True)
    subprocess.run([sys.executable, "-m", "multiseg.cli", "install-caffe", "--python", python], check=True, timeout=600)
    assert subprocess.run([python, "-c", "import multiseg"], capture_output=True, cwd=tmp_path).returncode != 0
    monkeypatch.setenv("MULTISEG_CAFFE_PYTHON", str(python))
    run = multiseg.Job(dataset=dataset, backend="caffe", epochs=1).train(tmp_path / "run", progress=False)
    assert run.environment["executable"] == str(python)
    with run:
        assert run.predict(dataset.val.read([0])[0]).shape == (1, 1, 32, 32)
