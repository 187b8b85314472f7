"""The state of watched runs while folders appear."""

from __future__ import annotations

import http.client
import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.run import names, requests
from multiseg.watch.server import WatchServer
from multiseg.watch.watcher import Watcher


@pytest.fixture
def job(fourth: str, dataset: Any) -> multiseg.Job:
    return multiseg.Job(dataset=dataset, backend=fourth, epochs=1, seed=1)


def ids(watcher: Watcher) -> dict[str, Any]:
    return {record["label"]: record["id"] for record in watcher.state()["runs"]}


def test_the_id_of_a_run_never_becomes_that_of_another(job: multiseg.Job, tmp_path: Path) -> None:
    """A page that is older than the state must not stop another training."""
    watcher = Watcher([tmp_path / "first", tmp_path / "second"])
    before = ids(watcher)
    job.train(tmp_path / "first/inner", progress=False)  # the first is a folder of runs
    after = ids(watcher)
    assert list(after) == ["second", "inner"]
    assert watcher.folder(before["first"]) is None
    assert before["second"] == after["second"] and watcher.folder(after["second"]) == tmp_path / "second"
    assert watcher.folder(after["inner"]) == tmp_path / "first/inner"
    assert ids(Watcher([tmp_path / "second"])) == {"second": after["second"]}  # of a server that is started again


def test_the_process_of_a_training_may_have_any_name(job: multiseg.Job, tmp_path: Path) -> None:
    run = job.train(tmp_path / "run", progress=False).path
    (run / names.SUMMARY).unlink()
    program = "import sys; open('/proc/self/comm', 'wb').write(b'\\xff) Z'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        progress = json.loads((run / names.PROGRESS).read_text())
        (run / names.PROGRESS).write_text(json.dumps({**progress, "pid": process.pid, "host": platform.node()}))
        assert Watcher([run]).state()["runs"][0]["status"] in ("training", "validating")
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
        assert Watcher([run]).state()["runs"][0]["status"] == "interrupted"


def test_a_request_for_a_run_that_is_no_longer_watched_is_not_found(job: multiseg.Job, tmp_path: Path) -> None:
    watcher = Watcher([tmp_path / "first", tmp_path / "second"])
    gone = ids(watcher)["first"]
    for run in ("first/inner", "second"):
        job.train(tmp_path / run, progress=False)
    watcher.state()
    with WatchServer(watcher) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        body = json.dumps({"run": gone, "request": "stop"})
        connection.request(
            "POST", f"/{server.token}/request", body, {"Origin": f"http://127.0.0.1:{server.server_port}"}
        )
        answer = connection.getresponse()
        assert answer.status == 404
        assert "no longer watched" in json.loads(answer.read())["error"]
        connection.close()
        server.shutdown()
        thread.join()
    assert not list(tmp_path.rglob(names.REQUEST))
    assert requests.take(tmp_path / "second") is None
