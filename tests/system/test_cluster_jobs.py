"""A table of jobs on a real Dask cluster on loopback, over a backend in NumPy. test_cluster.py has the frameworks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from distributed.security import Security

import multiseg
from helpers.dask_cluster import DaskCluster
from multiseg.errors import ClusterError, SettingsError
from multiseg.jobs.jobs import train_jobs

FOURTH = Path(__file__).parents[1] / "fourth_backend"
TIMED = ("seconds", "val_seconds", "images_per_second")
# the other backends are looked for where they are not: none of these tests needs one
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(filter(None, [str(FOURTH), os.environ.get("PYTHONPATH")])),
    **{f"MULTISEG_{name}_PYTHON": "/bin/false" for name in ("CAFFE", "TORCH", "TENSORFLOW")},
}
# some seconds, so that a job is still at work when what happens to it has happened; few snapshots, which all are fetched
LONG: dict[str, Any] = {"epochs": 40, "snapshot_interval": 1}
Start = Callable[..., DaskCluster]


@contextmanager
def starter(folders: pytest.TempPathFactory) -> Iterator[Start]:
    """Yield start(cores of a worker, ...), which starts a cluster with these workers, called w0, w1, ...; close them after it."""
    with ExitStack() as stack:

        def start(*cores: int, **settings: Any) -> DaskCluster:
            cluster = DaskCluster(folders.mktemp("dask"), ENVIRONMENT, **settings)
            stack.callback(cluster.close)
            for index, count in enumerate(cores):
                cluster.add_worker(f"w{index}", count)
            cluster.wait(len(cores))
            return cluster

        yield start


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    with starter(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Three workers of one core, for tests that do not stop them."""
    with starter(tmp_path_factory) as start:
        yield start(1, 1, 1)


@pytest.fixture
def job(fourth: str, dataset: Any) -> multiseg.Job:
    """8 epochs of 14 steps, shuffled and flipped."""
    return multiseg.Job(
        dataset=dataset.path, backend=fourth, epochs=8, solver="adam", seed=3, threads=1, snapshot_interval=0.5,
        augment={"flip": "both"},
    )  # fmt: skip


def learned(folder: Path) -> dict[str, Any]:
    """All that a training must come to again, and the names of its files."""
    run = multiseg.Run.open(folder)
    assert run.snapshot is not None
    return {
        "rows": [{key: row[key] for key in row if key not in TIMED} for row in run.history],
        "weights": (run.snapshot.path / "network.npz").read_bytes(),
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock"),
    }


def plain(job_json: dict[str, Any]) -> dict[str, Any]:
    """job.json, but for where and by what it was trained."""
    return {key: value for key, value in job_json.items() if key != "environment"}


class Heard:
    """Collects what is reported, and does something at the first event that ``when`` is true of."""

    def __init__(self, when: Callable[[str, dict[str, Any]], bool] | None = None, then: Any = None) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._when, self._then, self._lock = when, then, threading.Lock()

    def __call__(self, name: str, event: dict[str, Any]) -> None:
        with self._lock:
            self.events.append((name, event))
            act = self._when is not None and self._when(name, event)
            if act:
                self._when = None
        if act:
            self._then(name, event)

    def of(self, kind: str) -> list[str]:
        return [name for name, event in self.events if event["event"] == kind]


def test_a_run_comes_back_as_if_it_had_been_trained_here(three: DaskCluster, job: multiseg.Job, tmp_path: Path) -> None:
    """With files of the user's, weights to start from, and all that a run folder holds."""
    model = tmp_path / "net.json"
    model.write_text('{"numpy network": {"dropout": 0.5}}')
    job.train(tmp_path / "first", progress=False)
    jobs = {
        "model": replace(job, model=model),
        "weights": replace(job, weights=tmp_path / "first", keep="all"),
        "file": replace(job, weights=tmp_path / "first/snapshots/epoch-0008/network.npz", seed=4),
    }
    heard = Heard()
    outcomes = train_jobs(jobs, tmp_path / "there", scheduler=three.address, report=heard)
    assert [(each.name, each.status, each.error) for each in outcomes] == [(name, "finished", "") for name in jobs]
    for name, each in jobs.items():
        each.train(tmp_path / "here" / name, progress=False)
        here, there = tmp_path / "here" / name, tmp_path / "there" / name
        assert learned(here) == learned(there), name
        assert plain(json.loads((there / "job.json").read_text())) == plain(json.loads((here / "job.json").read_text()))
        assert multiseg.Run.open(there).dataset.path == job.dataset
    assert heard.of("epoch").count("model") == 9  # live, one for each row
    started = {name: event["folder"] for name, event in heard.events if event["event"] == "start"}
    assert started == {name: str(tmp_path / "there" / name) for name in jobs}
    again = train_jobs(jobs, tmp_path / "there", scheduler=three.address)
    assert [each.status for each in again] == ["skipped"] * 3
    folders = [*three._folder.glob("w?/dask-scratch-space/*/multiseg-*")]
    assert not folders, "nothing stays with the workers"


def test_a_job_of_a_killed_worker_goes_on_elsewhere(start: Start, job: multiseg.Job, tmp_path: Path) -> None:
    cluster = start(1, 1)
    # long enough for a snapshot to come home before it is finished, on a busy machine as well
    longer = replace(job, **LONG | {"epochs": 100})
    jobs = {"long": longer, "short": replace(job, epochs=2), "other": replace(job, epochs=2, seed=4)}
    names = cluster.names()

    def kill(name: str, event: dict[str, Any]) -> None:
        cluster.kill(names[event["worker"]])

    def fetched(name: str, event: dict[str, Any]) -> bool:
        snapshots = (tmp_path / "there/long/snapshots").glob("epoch-*")
        return name == "long" and event["event"] == "epoch" and any(snapshots)

    heard = Heard(fetched, kill)
    outcomes = train_jobs(jobs, tmp_path / "there", scheduler=cluster.address, report=heard)
    assert [each.status for each in outcomes] == ["finished"] * 3, outcomes
    assert sorted(heard.of("attempt")) == sorted([*jobs, "long"]), "the killed one alone began twice"
    assert sorted(heard.of("end")) == sorted(jobs), "none was finished twice"
    first, second = (event["iteration"] for name, event in heard.events if (name, event["event"]) == ("long", "start"))
    assert first == 0 < second, "it went on from a snapshot"
    for name in ("long", "short"):
        jobs[name].train(tmp_path / "here" / name, progress=False)
        assert learned(tmp_path / "here" / name) == learned(tmp_path / "there" / name)


def test_the_scheduler_is_restarted(start: Start, job: multiseg.Job, tmp_path: Path) -> None:
    """Its workers end with it, as Dask's do. What is finished is not run again, the rest goes on."""
    cluster = start(1)
    jobs = {"short": replace(job, epochs=1), "long": replace(job, **LONG), "waits": replace(job, epochs=1, seed=4)}
    assert train_jobs({"short": jobs["short"]}, tmp_path / "there", scheduler=cluster.address)[0].status == "finished"

    def restart(name: str, event: dict[str, Any]) -> None:
        cluster.kill("scheduler")
        cluster.kill("w0")
        cluster.start_scheduler()
        cluster.add_worker("w1", 1)

    heard = Heard(lambda name, event: name == "long" and event["event"] == "epoch" and event["epoch"] >= 3, restart)
    outcomes = train_jobs(jobs, tmp_path / "there", scheduler=cluster.address, report=heard)
    assert [each.status for each in outcomes] == ["skipped", "finished", "finished"], outcomes
    assert "short" not in heard.of("attempt") and heard.of("attempt").count("long") == 2
    assert "long" in heard.of("lost") and sorted(heard.of("end")) == ["long", "waits"]
    jobs["long"].train(tmp_path / "here", progress=False)
    assert learned(tmp_path / "here") == learned(tmp_path / "there/long")


def test_a_scheduler_that_stays_away(
    start: Start, job: multiseg.Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All jobs wait for it once, not one after the other; and a wish to stop is heard meanwhile."""
    monkeypatch.setattr("multiseg.cluster.connection.PATIENCE_SECONDS", 0)
    cluster = start(1)
    jobs = {f"j{seed}": replace(job, **LONG, seed=seed) for seed in range(3)}
    heard = Heard(
        lambda name, event: event["event"] == "epoch" and event["epoch"] >= 3, lambda *_: cluster.kill("scheduler")
    )
    outcomes = train_jobs(jobs, tmp_path, scheduler=cluster.address, report=heard)
    assert [each.status for each in outcomes] == ["failed"] * 3
    assert len({each.error for each in outcomes}) == 1 and "run the same command again to resume" in outcomes[0].error

    cluster.start_scheduler()
    cluster.add_worker("w1", 1)
    cluster.wait(1)
    file = tmp_path / "jobs.toml"
    file.write_text(
        f"runs = 'again'\n[[job]]\ndataset = '{job.dataset}'\nbackend = 'numpy'\nepochs = 5000\nseed = [1, 2]\nthreads = 1\n"
    )
    program = multiseg_command("train", file, "--scheduler", cluster.address)
    assert program.stderr is not None
    said = ""
    for line in program.stderr:
        said += line
        if "at tcp" in line:
            cluster.kill("scheduler")
        if "the scheduler was lost" in line:
            program.send_signal(signal.SIGINT)
            break
    said += program.communicate(timeout=60)[1]
    assert program.returncode == 130 and "the same command resumes" in said and "Traceback" not in said, said


def test_a_job_waits_for_a_worker_that_can_run_it(start: Start, job: multiseg.Job, tmp_path: Path) -> None:
    """One that lacks the backend is never asked; the only one that has it dies; another one comes."""
    cluster = start(1)
    cluster.add_worker("lacks", 1, environment={"MULTISEG_NUMPY_PYTHON": "/bin/false"})
    cluster.wait(2)

    def replace_it(name: str, event: dict[str, Any]) -> None:
        cluster.kill("w0")
        cluster.add_worker("w1", 1)

    heard = Heard(lambda name, event: event["event"] == "epoch" and event["epoch"] >= 3, replace_it)
    outcomes = train_jobs({"a": replace(job, **LONG)}, tmp_path, scheduler=cluster.address, report=heard)
    assert [each.status for each in outcomes] == ["finished"], outcomes
    names = cluster.names()
    ran = {names[event["worker"]] for _, event in heard.events[-3:] if "worker" in event}
    assert ran == {"w1"} and len(heard.of("attempt")) == 2


@pytest.mark.nightly
def test_a_nanny_starts_the_worker_again(start: Start, job: multiseg.Job, tmp_path: Path) -> None:
    """As `dask worker` does unless told otherwise. What it is called by has a blank in it, and an umlaut."""
    cluster = start()
    cluster.add_worker("w ü", nanny=True)
    cluster.wait(1)

    def kill(name: str, event: dict[str, Any]) -> None:
        port = event["worker"].rpartition(":")[2]
        (inner,) = {pid for address, pid in _listening() if address.endswith(f":{port}")}
        os.kill(inner, signal.SIGKILL)

    heard = Heard(lambda name, event: event["event"] == "epoch" and event["epoch"] >= 3, kill)
    table = {"ä b": replace(job, **LONG)}
    outcomes = train_jobs(table, tmp_path / "rüns", scheduler=cluster.address, report=heard)
    assert [each.status for each in outcomes] == ["finished"], outcomes
    assert len(heard.of("attempt")) == 2 and heard.of("lost") == ["ä b"]
    assert str(tmp_path / "rüns/ä b") in (tmp_path / "rüns/ä b/events.jsonl").read_text()


def test_workers_of_another_version_or_without_multiseg_get_no_jobs(
    start: Start, job: multiseg.Job, tmp_path: Path
) -> None:
    lacking, other = tmp_path / "lacking", tmp_path / "other"
    (lacking / "multiseg").mkdir(parents=True)
    (lacking / "multiseg/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'multiseg'\")")
    other.mkdir()
    (other / "sitecustomize.py").write_text("import multiseg._version\nmultiseg._version.__version__ = '0.0.9'\n")
    cluster = start()
    for name, path in {"lacking": lacking, "other": other}.items():
        cluster.add_worker(name, environment={"PYTHONPATH": f"{path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"})
    cluster.wait(2)
    with pytest.raises(ClusterError) as caught:
        train_jobs({"a": job}, tmp_path / "runs", scheduler=cluster.address)
    assert "has no multiseg; install it there" in str(caught.value)
    assert f"has multiseg 0.0.9, this is {multiseg.__version__}; install the same version on both" in str(caught.value)
    cluster.add_worker("good")
    cluster.wait(3)
    heard = Heard()
    jobs = {f"j{seed}": replace(job, epochs=1, seed=seed) for seed in range(4)}
    outcomes = train_jobs(jobs, tmp_path / "runs", scheduler=cluster.address, report=heard)
    assert [each.status for each in outcomes] == ["finished"] * 4
    names = cluster.names()
    assert {names[event["worker"]] for _, event in heard.events if event["event"] == "attempt"} == {"good"}


def test_resources_that_a_worker_was_started_with_count(start: Start, job: multiseg.Job, tmp_path: Path) -> None:
    cluster = start()
    cluster.add_worker("half", 2, options=["--resources", "cores=1"])
    cluster.wait(1)
    outcomes = train_jobs({"a": replace(job, threads=0, epochs=1)}, tmp_path, scheduler=cluster.address)
    assert outcomes[0].status == "finished" and multiseg.Run.open(tmp_path / "a").settings["threads"] == 1


def test_what_no_worker_can_do_is_said_before_anything_starts(
    three: DaskCluster, job: multiseg.Job, tmp_path: Path
) -> None:
    jobs = {
        "good": job, "torch": replace(job, backend="torch", augment={}), "cores": replace(job, threads=4),
        "gpu": replace(job, device="cuda"),
    }  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        train_jobs(jobs, tmp_path / "runs", scheduler=three.address)
    said = str(caught.value)
    assert (
        "job 'torch': no worker of the cluster can run it:" in said and said.count("/bin/false cannot load torch") == 3
    )
    assert said.count("has cores=1, the job needs threads=4") == 3 and said.count("has no GPU") == 3
    assert "'good'" not in said and not (tmp_path / "runs").exists()


def test_cores_are_never_oversubscribed(start: Start, job: multiseg.Job, tmp_path: Path) -> None:
    """Two cores: two jobs of one thread at a time, or one of two threads."""
    cluster = start(2)
    jobs = {f"{threads}-{seed}": replace(job, threads=threads, seed=seed) for seed in (1, 2) for threads in (1, 2)}
    heard = Heard()
    assert all(
        each.status == "finished" for each in train_jobs(jobs, tmp_path, scheduler=cluster.address, report=heard)
    )
    busy: dict[str, int] = {}
    most = 0
    for name, event in heard.events:
        if event["event"] == "start":
            busy[name] = jobs[name].threads
        elif event["event"] == "end":
            del busy[name]
        most = max(most, sum(busy.values()))
    assert most == 2
    left = train_jobs({"open": replace(job, threads=0)}, tmp_path, parallel=2, scheduler=cluster.address)
    assert left[0].status == "finished" and multiseg.Run.open(tmp_path / "open").settings["threads"] == 1


def test_a_job_that_fails_says_why_in_the_users_words(three: DaskCluster, job: multiseg.Job, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"numpy network": {}}')
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/notes.txt").write_text("not a run")
    jobs = {"bad": replace(job, model=bad), "good": job, "mine": job}
    outcomes = {each.name: each for each in train_jobs(jobs, tmp_path / "runs", scheduler=three.address)}
    assert outcomes["bad"].status == "failed" and f"{bad}: is no NumPy network" in outcomes["bad"].error
    assert outcomes["good"].status == "finished"
    assert outcomes["mine"].status == "failed" and "is not a run folder" in outcomes["mine"].error
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["good", "mine"]
    assert [path.name for path in (tmp_path / "runs/mine").iterdir()] == ["notes.txt"]


def multiseg_command(*arguments: object, **settings: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "multiseg.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def test_ctrl_c_brings_the_snapshots_home_and_the_same_command_goes_on(
    three: DaskCluster, job: multiseg.Job, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.toml"
    file.write_text(
        f"[defaults]\ndataset = '{job.dataset}'\nbackend = 'numpy'\nepochs = 20\nsolver = 'adam'\nthreads = 1\n[[job]]\n"
        "name = 'j'\nseed = [1, 2, 3, 4]\n"
    )
    command = ("train", file, "--scheduler", three.address, "--json")
    program = multiseg_command(*command)
    assert program.stdout is not None
    for line in program.stdout:
        event = json.loads(line)
        if event["event"] == "epoch" and event["epoch"] >= 3:
            break
    listening = [line for line in _listening() if line[1] in _descendants(program.pid)]
    assert not listening, "the program opens no port"
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 130 and "the same command resumes" in said, said
    assert "Traceback" not in said
    begun = [path for path in (tmp_path / "runs").iterdir() if multiseg.Run.open(path).snapshot]
    assert 1 <= len(begun) <= 3
    rest = multiseg_command(*command)
    said, problems = rest.communicate(timeout=120)
    assert rest.returncode == 0, problems
    events = [json.loads(line) for line in said.splitlines()]
    became = {event["job"]: event["event"] for event in events if event["event"] in ("finished", "skipped")}
    assert sorted(became) == [f"j_seed={n}" for n in (1, 2, 3, 4)] and "finished" in became.values()
    for seed in (1, 4):
        whole = replace(job, epochs=20, seed=seed, snapshot_interval=1, augment={})
        whole.train(tmp_path / f"here/{seed}", progress=False)
        assert learned(tmp_path / f"here/{seed}")["rows"] == learned(tmp_path / f"runs/j_seed={seed}")["rows"]


def test_a_killed_program_leaves_nothing_at_work(three: DaskCluster, job: multiseg.Job, tmp_path: Path) -> None:
    file = tmp_path / "jobs.toml"
    file.write_text(f"[[job]]\ndataset = '{job.dataset}'\nbackend = 'numpy'\nepochs = 5000\nthreads = 1\n")
    program = multiseg_command("train", file, "--scheduler", three.address, "--json")
    assert program.stdout is not None
    for line in program.stdout:
        if json.loads(line)["event"] == "epoch":
            break
    program.kill()
    program.communicate()
    after = train_jobs(
        {f"j{seed}": replace(job, seed=seed) for seed in range(3)}, tmp_path / "runs", scheduler=three.address
    )
    assert [each.status for each in after] == ["finished"] * 3, "all three workers are free again"


def test_any_executor_of_dask(three: DaskCluster, job: multiseg.Job, tmp_path: Path) -> None:
    with three.client() as client:
        outcomes = train_jobs({"a": job, "b": replace(job, seed=4)}, tmp_path, 2, client.get_executor(pure=False))
    assert [each.status for each in outcomes] == ["finished"] * 2


def test_a_client_of_ones_own(three: DaskCluster, job: multiseg.Job, tmp_path: Path) -> None:
    with three.client() as client:
        assert [each.status for each in train_jobs({"a": job}, tmp_path, scheduler=client)] == ["finished"]
        assert client.status == "running"


def test_who_cannot_be_reached(
    start: Start, job: multiseg.Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiseg.cluster.connection.CONNECT_SECONDS", 1)
    with pytest.raises(ClusterError, match=r"tcp://127.0.0.1:9: no scheduler answers there .*dask scheduler --host"):
        train_jobs({"a": job}, tmp_path, scheduler="tcp://127.0.0.1:9")
    cluster = start()
    with pytest.raises(ClusterError, match=r"has no worker; start workers with `dask worker tcp://127"):
        train_jobs({"a": job}, tmp_path, scheduler=cluster.address)
    for other in ("nofile.json", "localhost"):
        with pytest.raises(ClusterError, match=f"{other}: is neither a scheduler's address, such as tcp://127"):
            train_jobs({"a": job}, tmp_path, scheduler=other)
    with pytest.raises(SettingsError, match="executor and scheduler"):
        train_jobs({"a": job}, tmp_path, executor=object(), scheduler=cluster.address)  # type: ignore[arg-type]


def test_tls(start: Start, job: multiseg.Job, tmp_path: Path) -> None:
    """Each side shows a certificate of one authority; who has none is not let in."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    files = {"ca-file": "ca.pem", "cert": "own.pem", "key": "own.pem"}
    options = [word for name, file in files.items() for word in (f"--tls-{name}", str(tmp_path / file))]
    security = Security(
        tls_ca_file=str(tmp_path / "ca.pem"), tls_client_cert=str(tmp_path / "own.pem"),
        tls_client_key=str(tmp_path / "own.pem"), require_encryption=True,
    )  # fmt: skip
    cluster = start(1, protocol="tls", options=options, security=security)
    (tmp_path / "jobs.toml").write_text(f"[[job]]\ndataset = '{job.dataset}'\nbackend = 'numpy'\nepochs = 1\n")
    command = ("train", tmp_path / "jobs.toml", "--scheduler", cluster.address)
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    known = {f"{prefix}CA_FILE": str(tmp_path / "ca.pem")}
    own = {f"{prefix}CLIENT__{what}": str(tmp_path / "own.pem") for what in ("CERT", "KEY")}
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "other.pem")
    other = {f"{prefix}CLIENT__{what}": str(tmp_path / "other.pem") for what in ("CERT", "KEY")}
    for environment, words in (({}, "needs a client certificate"), (known | other, "no scheduler answers there")):
        stranger = multiseg_command(*command, env={**os.environ, **environment})
        said = stranger.communicate(timeout=60)[1]
        assert stranger.returncode == 2 and words in said and "distributed.comm.tls" in said, said
        assert "Traceback" not in said
    guest = multiseg_command(*command, env={**os.environ, **known, **own})
    assert guest.communicate(timeout=60)[0].endswith(": finished\n") and guest.returncode == 0


def test_only_loopback_is_listened_on(three: DaskCluster) -> None:
    own = {process.pid for process in (*three.workers.values(), three.scheduler)}
    own |= {child for pid in own for child in _descendants(pid)}
    found = [address.rpartition(":")[0] for address, pid in _listening() if pid in own]
    assert len(found) >= 4 and set(found) == {"127.0.0.1"}


def _descendants(pid: int) -> set[int]:
    found = {pid}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= _descendants(int(child))
    return found


def _listening() -> list[tuple[str, int]]:
    """Address and process of each listening socket of TCP."""
    sockets = {}
    for table, own in (("tcp", "0100007F"), ("tcp6", "00000000000000000000000001000000")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, _, port = fields[1].partition(":")
                host = "127.0.0.1" if address == own else address
                sockets[f"socket:[{fields[9]}]"] = f"{host}:{int(port, 16)}"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(each.readlink()) for each in (process / "fd").iterdir()]
        except OSError:  # ended by now
            continue
        found += [(sockets[link], int(process.name)) for link in links if link in sockets]
    return found
