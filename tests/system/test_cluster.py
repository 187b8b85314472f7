"""The three frameworks on a real Dask cluster: a table of jobs with a worker killed on the way, and hosts of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import multiseg
from helpers import small_models
from helpers.dask_cluster import DaskCluster
from helpers.lending import weights_of
from multiseg.jobs.jobs import train_jobs

BACKENDS = ("caffe", "torch", "tensorflow")
KILLED = "torch-1"  # the job whose worker is killed: long enough to be still at work then
TIMED = ("seconds", "val_seconds", "images_per_second")

pytestmark = [pytest.mark.needs(*BACKENDS), pytest.mark.usefixtures("lent_workers")]


@pytest.fixture(scope="module")
def jobs(dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, multiseg.Job]:
    """Twelve: 3 epochs of 14 steps of a small network with dropout, Adam, shuffled, augmented; by four seeds. One is longer."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for backend in BACKENDS:
        (folder / backend).mkdir()
        job = multiseg.Job(
            dataset=dataset.path, backend=backend, model=small_models.write(backend, folder / backend), epochs=3,
            batch_size=8, solver="adam", learning_rate=1e-2, threads=1, snapshot_interval=0.3,
            augment={"flip": "both", "rotation": 30, "noise": 5},
        )  # fmt: skip
        found |= {f"{backend}-{seed}": replace(job, seed=seed) for seed in range(4)}
    found[KILLED] = replace(found[KILLED], epochs=20)
    return found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, multiseg.Job]], Path]:
    """here(jobs): the folder of these jobs' runs, trained on this machine, each once."""
    folder = tmp_path_factory.mktemp("here")

    def trained(table: dict[str, multiseg.Job]) -> Path:
        assert all(each.status in ("finished", "skipped") for each in train_jobs(table, folder))
        return folder

    return trained


def learned(folder: Path) -> dict[str, Any]:
    """All that a training must come to again: weights to the bit, and the history but for its times."""
    run = multiseg.Run.open(folder)
    rows = [{key: row[key] for key in row if key not in TIMED} for row in run.history]
    return {"rows": rows, **{name: value.tobytes() for name, value in weights_of(run).items()}}


@pytest.mark.nightly  # test_cluster_jobs.py kills workers of a small backend
def test_twelve_jobs_and_a_worker_killed_on_the_way(
    jobs: dict[str, multiseg.Job], here: Callable[[dict[str, multiseg.Job]], Path], tmp_path: Path
) -> None:
    """Each is finished once, and comes to what it comes to on one machine, to the bit."""
    local = here(jobs)
    with ExitStack() as stack:
        (tmp_path / "dask").mkdir()
        cluster = DaskCluster(tmp_path / "dask")
        stack.callback(cluster.close)
        for name in ("w0", "w1", "w2"):
            cluster.add_worker(name)
        cluster.wait(3)
        names = cluster.names()
        counts: Counter[str] = Counter()
        begun: dict[str, list[int]] = {}
        killed: list[str] = []
        lock = threading.Lock()

        def watch(name: str, event: dict[str, Any]) -> None:
            with lock:
                counts[event["event"]] += 1
                if event["event"] == "start":
                    begun.setdefault(name, []).append(event["iteration"])
                here_now = list((tmp_path / "there" / KILLED / "snapshots").glob("epoch-*"))
                if name == KILLED and event["event"] == "epoch" and here_now and not killed:
                    killed.append(names[event["worker"]])
                    cluster.kill(killed[0])

        outcomes = train_jobs(jobs, tmp_path / "there", scheduler=cluster.address, report=watch)
    assert [(each.name, each.status, each.error) for each in outcomes] == [(name, "finished", "") for name in jobs]
    assert counts["attempt"] == 13 and counts["end"] == 12, "the killed one alone began twice"
    assert [name for name, starts in begun.items() if len(starts) > 1] == [KILLED]
    first, second = begun[KILLED]
    assert first == 0 < second, "it went on from a snapshot"
    for name in jobs:
        assert learned(tmp_path / "there" / name) == learned(local / name), name
        log = (tmp_path / "there" / name / "events.jsonl").read_text()
        assert log.count('"event": "end"') == 1


def test_a_run_from_elsewhere_is_tested_and_gone_on_from_here(jobs: dict[str, multiseg.Job], tmp_path: Path) -> None:
    """One framework's run is another one's start, on a worker: file, weights and solver's state go there."""
    first = replace(jobs["torch-1"], recipe="equal", loss="l2", epochs=1)
    first.train(tmp_path / "first", progress=False)
    job = replace(jobs["caffe-1"], model=first.model, weights=tmp_path / "first", epochs=1, recipe="equal", loss="l2")
    (tmp_path / "dask").mkdir()
    cluster = DaskCluster(tmp_path / "dask")
    try:
        cluster.add_worker("w0")
        outcome = train_jobs({"second": job}, tmp_path / "there", scheduler=cluster.address)[0]
    finally:
        cluster.close()
    assert outcome.status == "finished", outcome.error
    job.train(tmp_path / "here", progress=False)
    there, here_run = multiseg.Run.open(tmp_path / "there/second"), multiseg.Run.open(tmp_path / "here")
    assert there.summary["weights"] == here_run.summary["weights"]
    assert learned(there.path) == learned(here_run.path)


# Hosts of their own: a network namespace for each, with an address, and another view of the files: where the test's folder
# lies, a worker finds an empty one. That takes root, and iproute2.

NETWORK = "10.213.71"


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[list[str]]]:
    """The commands that start what follows them on two other hosts, .2 and .3 of the network whose .1 is this one."""
    bridge = f"ms{os.getpid() % 100000}"
    spaces = [f"{bridge}-{index}" for index in range(2)]
    if not (shutil.which("ip") and shutil.which("unshare") and os.geteuid() == 0):
        pytest.skip("network namespaces take root, iproute2 and util-linux")
    trial = _command("ip", "link", "add", bridge, "type", "bridge")
    if trial.returncode:
        pytest.skip(f"this machine allows no bridge: {trial.stderr.strip()}")
    try:
        commands = [["ip", "addr", "add", f"{NETWORK}.1/24", "dev", bridge], ["ip", "link", "set", bridge, "up"]]
        for index, space in enumerate(spaces):
            ours, theirs = f"{bridge}a{index}", f"{bridge}b{index}"
            commands += [
                ["ip", "netns", "add", space],
                ["ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", space],
                ["ip", "link", "set", ours, "master", bridge, "up"],
                ["ip", "-n", space, "addr", "add", f"{NETWORK}.{index + 2}/24", "dev", theirs],
                ["ip", "-n", space, "link", "set", theirs, "up"],
                ["ip", "-n", space, "link", "set", "lo", "up"],
            ]
        for command in commands:
            done = _command(*command)
            if done.returncode:
                pytest.skip(f"this machine allows no network namespaces: {' '.join(command)}: {done.stderr.strip()}")
        hidden = tmp_path.parent  # of this test and all the others
        script = f'mount -t tmpfs none {hidden} && mkdir -p "$0" && exec "$@"'
        yield [
            [
                "ip",
                "netns",
                "exec",
                space,
                "unshare",
                "--mount",
                "sh",
                "-c",
                script,
                str(tmp_path / "dask" / f"h{index}"),
            ]
            for index, space in enumerate(spaces)
        ]
    finally:
        for space in spaces:
            _command("ip", "netns", "del", space)
        _command("ip", "link", "del", bridge)


def test_hosts_that_share_no_folder(
    jobs: dict[str, multiseg.Job],
    here: Callable[[dict[str, multiseg.Job]], Path],
    hosts: list[list[str]],
    tmp_path: Path,
) -> None:
    """Network files and the dataset go there, the dataset once to each host; runs come back. One host is lost on the way."""
    (tmp_path / "dask").mkdir()
    table = {name: job for name, job in jobs.items() if name.endswith("-0")}
    cluster = DaskCluster(tmp_path / "dask", host=f"{NETWORK}.1")
    copies: list[str] = []
    killed: list[str] = []
    lock = threading.Lock()
    try:
        for index, within in enumerate(hosts):
            cluster.add_worker(f"h{index}", within=within, host=f"{NETWORK}.{index + 2}")
        cluster.wait(2)
        names = cluster.names()
        assert {address.split("//")[1].split(":")[0] for address in names} == {f"{NETWORK}.2", f"{NETWORK}.3"}

        def watch(name: str, event: dict[str, Any]) -> None:
            with lock:
                if event["event"] == "dataset":
                    copies.append(names[event["worker"]])
                fetched = list((tmp_path / "there" / name / "snapshots").glob("epoch-*"))
                if event["event"] == "epoch" and event["epoch"] == 2 and fetched and not killed:
                    killed.append(name)
                    cluster.kill(names[event["worker"]])

        outcomes = train_jobs(table, tmp_path / "there", scheduler=cluster.address, report=watch)
    finally:
        cluster.close()
    assert [(each.name, each.status, each.error) for each in outcomes] == [(name, "finished", "") for name in table]
    assert sorted(copies) == ["h0", "h1"] and killed
    local = here(table)
    for name in table:
        assert learned(tmp_path / "there" / name) == learned(local / name), name
    assert multiseg.Run.open(tmp_path / "there" / "caffe-0").dataset.path == jobs["caffe-0"].dataset
