"""One training over several processes of torchrun, on this machine: the same as by one process, to rounding."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers import small_models
from helpers.lending import weights_of
from helpers.nightly import nightly
from helpers.processes import children, gone
from helpers.void_masks import void_masks
from multiseg.errors import ModelError, SettingsError, TrainingStopped, WorkerError
from multiseg.training.ranks import Ranks, current
from multiseg.training.signals import Stop

pytestmark = [pytest.mark.needs("torch"), pytest.mark.usefixtures("lent_workers")]

PROGRAM = Path(__file__).parents[1] / "helpers/ranks_program.py"
PLAIN = small_models.TORCH.replace("self.drop1(self.conv1(x).relu())", "self.conv1(x).relu()")
AUGMENT = {"flip": "both", "quarter_turns": True, "noise": 5}
STEPS = 50


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    """37 pairs for training, 4 for validation."""
    folder = tmp_path_factory.mktemp("odd")
    images = multiseg.create_images(folder / "images", count=41, seed=1)
    return multiseg.Dataset.create(folder / "dataset", input=images / "input", target=images / "target", seed=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Network files: plain, with a layer that is not used, with dropout, with batch normalisation, with other losses."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "small.py").write_text(PLAIN)
    layer = "self.drop1 = nn.Dropout(0.5)"
    (folder / "unused.py").write_text(PLAIN.replace(layer, "self.spare = nn.Conv2d(1, 1, 3)"))
    (folder / "dropout.py").write_text(small_models.TORCH)
    norm = PLAIN.replace(layer, "self.norm = nn.BatchNorm2d(8)").replace(
        "self.conv1(x).relu()", "self.norm(self.conv1(x))"
    )
    (folder / "norm.py").write_text(norm)
    failing = (
        "import os\n\ndef loss(output, labels):\n    if os.environ['RANK'] == '0':\n        raise ValueError('not I')\n"
    )
    made = 'def network(params):\n    return {"model": Small(), "loss": loss}\n'
    (folder / "failing.py").write_text(f"{PLAIN}\n\n{failing}    return (output - labels).abs().mean()\n\n{made}")
    made = 'def network(params):\n    return {"model": Small(), "loss": nn.L1Loss(reduction="sum")}\n'
    (folder / "sum.py").write_text(f"{PLAIN}\n\n{made}")
    return folder


@pytest.fixture(scope="module")
def jobs(odd: multiseg.Dataset, files: Path) -> dict[str, multiseg.Job]:
    """Trainings over several epochs that end with a smaller batch: of 50 steps and more, and the tutorial's network of 10."""
    job = multiseg.Job(
        dataset=odd.path, model=files / "small.py", seed=5, threads=1, loss="l2", lr_policy="fixed", keep="last",
        device="cpu",
    )  # fmt: skip
    adam: dict[str, Any] = {"solver": "adam", "learning_rate": 1e-2}
    return {
        # 4 steps an epoch, the last one of a single image: none for the second rank
        "sgd": replace(job, epochs=13, batch_size=12, learning_rate=1e-6, augment=AUGMENT),
        # 5 steps an epoch, the last one of 5 images: 3 and 2
        "adam": replace(job, epochs=10, batch_size=8, **adam),
        # 7 updates an epoch, of which the last one is of one image, and a layer that is never used
        "accumulate": replace(job, model=files / "unused.py", epochs=8, batch_size=2, accumulate=3, **adam),
        "fcn": replace(job, model=None, epochs=2, batch_size=8, loss=None),  # its own loss, and the tutorial's solver
    }


def arguments(folder: Path, jobs: list[tuple[multiseg.Job, Path, bool]]) -> list[str]:
    """Of the program."""
    plain = [[vars(job), str(run), resume] for job, run, resume in jobs]
    return [str(PROGRAM), str(folder), json.dumps(plain, default=str)]


def torchrun() -> list[str]:
    """The command that starts two ranks on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def together(folder: Path, jobs: list[tuple[multiseg.Job, Path, bool]]) -> list[list[list[str]]]:
    """Train jobs by two ranks, one after the other; what became of each job, for each rank."""
    done = subprocess.run([*torchrun(), *arguments(folder, jobs)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]
    return [list(each) for each in zip(*ranks, strict=True)]


FINISHED = [["finished", "finished"]] * 2


@pytest.fixture(scope="module")
def runs(jobs: dict[str, multiseg.Job], tmp_path_factory: pytest.TempPathFactory) -> dict[str, multiseg.Run]:
    """Each job's run by two ranks, all of them in one program."""
    folder = tmp_path_factory.mktemp("together")
    outcomes = together(folder, [(job, folder / name, False) for name, job in jobs.items()])
    assert outcomes == [FINISHED] * len(jobs)
    return {name: multiseg.Run.open(folder / name) for name in jobs}


def difference(one: multiseg.Run, other: multiseg.Run) -> float:
    """The largest of any weight, as a part of how far the layer's weights have moved at most."""
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max() / np.abs(first[name]).max()) for name in first)


@pytest.mark.parametrize("name", ["sgd", "adam", "accumulate", "fcn"])
def test_two_ranks_train_as_one_process(
    jobs: dict[str, multiseg.Job], runs: dict[str, multiseg.Run], tmp_path: Path, name: str
) -> None:
    """The tolerance is what rounding makes of the same sums in another order, in one process: batches of half the size, of which
    twice as many make an update: 2e-7 to 7e-6. Two ranks were found to differ by 0.9 to 1.1 times as much; with the images of the
    last batch counted as those of a whole one, by more than a thousand times.
    """
    job, two = jobs[name], runs[name]
    assert isinstance(job.batch_size, int)
    one = job.train(tmp_path / "one", progress=False)
    halves = replace(job, batch_size=job.batch_size // 2, accumulate=job.accumulate * 2)
    rounding = difference(halves.train(tmp_path / "halves", progress=False), one)
    assert two.history[-1]["iteration"] >= (STEPS if job.model else 10)
    assert difference(two, one) < 5 * rounding < 1e-4
    assert_same_history(two, one)
    assert two.environment["processes"] == 2 and "processes" not in one.environment
    settings = ("batch_size", "accumulate", "seed", "loss")
    assert [two.settings[key] for key in settings] == [one.settings[key] for key in settings]


def test_what_ends_a_training_ends_all_ranks(
    jobs: dict[str, multiseg.Job], runs: dict[str, multiseg.Run], files: Path, odd: multiseg.Dataset, tmp_path: Path
) -> None:
    """Early, with a loss that is no number, before it began, or because it was finished; each in the same program, one by one.

    Among them are dropout, a model file of Caffe's, and settings that differ.
    """
    job = jobs["sgd"]
    early = replace(job, model=files / "dropout.py", patience=1, min_delta=1e9, learning_rate=1e-9)
    diverging = replace(job, learning_rate=1e30)
    wrong = replace(job, weights=runs["fcn"].path)
    caffe = replace(job, model=small_models.write("caffe", tmp_path), epochs=1, batch_size=None)
    outcomes = together(
        tmp_path,
        [
            (early, tmp_path / "early", False),
            (diverging, tmp_path / "diverging", False),
            (wrong, tmp_path / "wrong", False),
            (job, runs["sgd"].path, True),
            (caffe, tmp_path / "caffe", False),
            (replace(job, model=files / "failing.py", loss=None), tmp_path / "failing", False),
        ],
    )
    assert outcomes[0] == FINISHED and multiseg.Run.open(tmp_path / "early").summary["stopped_early"]
    for (kind, said), (other, echoed) in outcomes[1:3]:  # rank 0 has come to an end in good order
        assert kind in ("TrainingError", "ModelError") and other == "TrainingError" and said in echoed
    assert "the loss is" in outcomes[1][0][1] and "try a learning rate below" in outcomes[1][0][1]
    assert "no weights in it fit" in outcomes[2][0][1] and not (tmp_path / "wrong").exists()
    assert outcomes[3] == outcomes[4] == FINISHED
    (kind, said), (other, echoed) = outcomes[5]  # rank 0 fails where the second one waits for its gradients
    assert (kind, other) == ("WorkerError", "WorkerError") and "ValueError: not I" in said
    assert "another process of this training has ended" in echoed
    assert multiseg.Run.open(tmp_path / "caffe").settings["batch_size"] == 16  # the backend's, for both ranks together


def test_ranks_go_on_where_one_process_stopped(
    jobs: dict[str, multiseg.Job], runs: dict[str, multiseg.Run], tmp_path: Path
) -> None:
    """In the middle of an epoch, and without the second rank seeing the run folder or knowing the seed."""
    job, stop, whole = jobs["adam"], Stop(), runs["adam"]
    with pytest.raises(TrainingStopped):
        job.train(tmp_path / "run", progress=after("step", 18, stop.ask), stop=stop)
    begun = multiseg.Run.open(tmp_path / "run").snapshot
    assert begun is not None and 17 <= begun.position.iteration <= 20
    program = [sys.executable, "-c", SEES_NOTHING, *arguments(tmp_path, [(job, tmp_path / "run", True)])]
    done = subprocess.run([*torchrun(), "--no-python", "--", *program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "rank-1.json").exists()  # its program ended with the training
    assert_same(multiseg.Run.open(tmp_path / "run"), whole)


# as the program, but that the second rank names another run folder, and no seed
SEES_NOTHING = """
import json, os, runpy, sys
jobs = json.loads(sys.argv[3])
if os.environ["RANK"] == "1":
    jobs[0][1], jobs[0][0]["seed"] = "/no/such/folder", None
sys.argv = [sys.argv[1], sys.argv[2], json.dumps(jobs)]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def assert_same(run: multiseg.Run, whole: multiseg.Run) -> None:
    """That a disturbed training came to what an undisturbed one did, to rounding."""
    assert difference(run, whole) < 1e-4  # Adam on these data: 7e-6 of rounding in one process, see above
    assert_same_history(run, whole)


def assert_same_history(run: multiseg.Run, other: multiseg.Run) -> None:
    for row, same in zip(run.history, other.history, strict=True):
        for key in ("epoch", "iteration", "learning_rate"):
            assert row[key] == same[key]
        for key in ("train_loss", "val_loss", "l1", "iou"):
            assert row[key] == same[key] is None or row[key] == pytest.approx(same[key], rel=1e-3)


def after(event: str, count: int, act: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    """A listener that acts once, at so manieth event of a kind."""
    seen: list[str] = []

    def listen(found: dict[str, Any]) -> None:
        seen.append(found["event"])
        if found["event"] == event and seen.count(event) == count:
            act()

    return listen


@contextmanager
def started(job: multiseg.Job, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int], list[int]]]:
    """A training by two ranks under way, 18 steps on: torchrun, the ranks' programs and their workers. All end with the block."""
    command = [
        *torchrun(), *here_alone(folder), "--log-dir", str(folder / "logs"), "--redirects", "3",
        *arguments(folder, [(job, folder / "run", False)]),
    ]  # fmt: skip
    command.remove("--standalone")
    # where a program and its worker are both killed, nobody removes their temporary files
    variables = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "TMPDIR": str(folder)}
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, env=variables)
    programs: list[int] = []
    try:
        wait_for(lambda: said(folder, 0, "stdout").count("step") >= 18, launcher)
        programs = programs_of(launcher.pid)
        yield launcher, programs, [worker for program in programs for worker in children(program)]
    finally:
        for pid in (launcher.pid, *programs):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launcher.wait()


def here_alone(folder: Path) -> list[str]:
    """Options with which torchrun, too, opens nothing beyond this machine, as docs/cluster.md has them."""
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", str(folder / "meeting"), "--rdzv-conf", "store_type=file"]
    return [*meeting, "--local-addr", "127.0.0.1"]


def programs_of(launcher: int) -> list[int]:
    """Process ids of the ranks' programs, in the order of ranks."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, KeyError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == launcher:
                variables = dict(each.partition("=")[::2] for each in (stat.parent / "environ").read_text().split("\0"))
                found[int(variables["RANK"])] = int(stat.parent.name)
    return [found[rank] for rank in sorted(found)]


def said(folder: Path, rank: int, stream: str) -> str:
    """What a rank's program has printed."""
    return "".join(path.read_text() for path in (folder / "logs").glob(f"*/attempt_0/{rank}/{stream}.log"))


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end and process.poll() is None, f"status {process.poll()}"
        time.sleep(0.05)


@pytest.mark.parametrize("number", nightly([signal.SIGTERM, signal.SIGINT], [signal.SIGINT]))
def test_a_signal_ends_all_ranks_with_a_snapshot(
    jobs: dict[str, multiseg.Job], runs: dict[str, multiseg.Run], tmp_path: Path, number: signal.Signals
) -> None:
    """torchrun hands it on. Meanwhile nothing listens beyond this machine: workers, gloo, the ranks' store, torchrun."""
    job = jobs["adam"]
    with started(job, tmp_path) as (launcher, programs, workers):
        assert len(programs) == len(workers) == 2
        listening = [address for pid in (launcher.pid, *programs, *workers) for address in listens(pid)]
        assert len(listening) >= 3 and all(address.is_loopback for address in listening), listening
        os.kill(launcher.pid, number)
        launcher.wait(60)
        assert all(gone(pid) for pid in (*programs, *workers))
    for rank in range(2):
        (outcome,) = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert outcome[0] == "TrainingStopped", outcome
        assert "Traceback" not in said(tmp_path, rank, "stderr")
    run = multiseg.Run.open(tmp_path / "run")
    assert run.summary["status"] == "stopped" and run.snapshot is not None and run.snapshot.position.iteration >= 18
    if number == signal.SIGTERM:
        assert_same(job.train(tmp_path / "run", resume=True, progress=False), runs["adam"])


@pytest.mark.parametrize("rank", nightly([0, 1], [0]))
def test_the_death_of_a_rank_ends_the_others(
    jobs: dict[str, multiseg.Job], runs: dict[str, multiseg.Run], tmp_path: Path, rank: int
) -> None:
    """By themselves: torchrun, which would stop them, is stopped meanwhile."""
    job, other = jobs["adam"], tmp_path / f"rank-{1 - rank}.json"
    with started(job, tmp_path) as (launcher, programs, workers):
        os.kill(launcher.pid, signal.SIGSTOP)
        for pid in (programs[rank], workers[rank]):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: other.exists() and other.stat().st_size > 0, launcher)
        os.kill(launcher.pid, signal.SIGCONT)
        launcher.wait(60)
        assert all(gone(pid) for pid in (*programs, *workers))
    (outcome,) = json.loads(other.read_text())
    assert outcome[0] == "WorkerError" and "another process of this training has ended" in outcome[1]
    assert not (tmp_path / f"rank-{rank}.json").exists()
    assert "Traceback" not in said(tmp_path, 1 - rank, "stderr")
    if rank == 1:
        assert multiseg.Run.open(tmp_path / "run").summary["status"] == "failed"
        assert_same(job.train(tmp_path / "run", resume=True, progress=False), runs["adam"])


def listens(pid: int) -> list[IPv4Address | IPv6Address]:
    """The addresses at which a process waits for connections."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            links.append(str(link.readlink()))
    found: list[IPv4Address | IPv6Address] = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and f"socket:[{cells[9]}]" in links:
                words = np.frombuffer(bytes.fromhex(cells[1].partition(":")[0]), ">u4").astype("<u4").tobytes()
                found.append(ip_address(words))
    return found


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This program is rank 0 of two on this machine, without torchrun; returns the other one's variables."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, "RANK": "1", "LOCAL_RANK": "1"}


def test_settings_that_differ_are_named(jobs: dict[str, multiseg.Job], by_hand: dict[str, str], tmp_path: Path) -> None:
    """Each rank started by hand: then PyTorch's store is ours to open, on this machine alone."""
    job = jobs["sgd"]
    other = replace(job, learning_rate=1e-7)
    second = subprocess.Popen([sys.executable, *arguments(tmp_path, [(other, tmp_path / "run", False)])], env=by_hand)
    try:
        with pytest.raises(WorkerError, match="another process of this training has ended"):
            job.train(tmp_path / "run", progress=False)
        assert second.wait(60) == 0
    finally:
        second.kill()
    (outcome,) = json.loads((tmp_path / "rank-1.json").read_text())
    assert outcome == [
        "SettingsError", "rank 1: learning_rate is 1e-07, but 1e-06 on rank 0; start all processes with the same job"
    ]  # fmt: skip
    left = tmp_path / "run"  # the log of a crash stays
    assert not left.exists() or [path.name for path in left.rglob("*")] == ["worker.log"]


@pytest.mark.parametrize("name", ["caffe", "tensorflow"])
def test_a_backend_that_cannot_says_so(
    jobs: dict[str, multiseg.Job], by_hand: dict[str, str], tmp_path: Path, name: str
) -> None:
    with pytest.raises(SettingsError, match="does not train in several processes") as caught:
        replace(jobs["sgd"], backend=name, model=None).train(tmp_path / "run")
    assert "backends that do: torch" in str(caught.value) and "train several jobs" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_shared_out_is_refused(
    jobs: dict[str, multiseg.Job], by_hand: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"batch_size=9: .* choose e.g. 8 or 10"):
        replace(jobs["sgd"], batch_size=9).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_no_mean_over_images_is_refused(
    jobs: dict[str, multiseg.Job], files: Path, by_hand: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(
        ModelError,
        match=r"norm.py: layer 'norm' \(BatchNorm2d\) uses batch statistics, which differ between the shards",
    ):
        replace(jobs["sgd"], model=files / "norm.py").train(tmp_path / "run")
    with pytest.raises(ModelError, match=r"sum.py: its loss .* L1Loss\(reduction='sum'\) is not a mean"):
        replace(jobs["sgd"], model=files / "sum.py", loss=None).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_that_count_unequally_are_refused_on_all_ranks(tmp_path: Path) -> None:
    """Ignored by the job, or within a loss of the network file's own."""
    masks, model = void_masks(tmp_path), tmp_path / "net.py"
    net = "from torch import nn\n\ndef network(params):\n    return {'model': nn.Conv2d(1, 3, 3, padding=1), 'loss': LOSS}\n"
    model.write_text(net.replace("LOSS", "nn.CrossEntropyLoss()"))
    own = "lambda o, l: nn.functional.cross_entropy(o, l[:, 0].long(), ignore_index=255)"
    (tmp_path / "own.py").write_text(net.replace("LOSS", own))
    job = multiseg.Job(
        dataset=masks.path, model=model, epochs=1, batch_size=4, threads=1, device="cpu", ignore_index=255
    )
    files = (model, tmp_path / "own.py")
    jobs = [replace(job, model=file, ignore_index=255 if file == model else None) for file in files]
    for file, outcome in zip(
        files, together(tmp_path, [(each, tmp_path / "run", False) for each in jobs]), strict=True
    ):
        (kind, message), (other, echoed) = outcome
        assert (kind, other) == ("SettingsError", "TrainingError") and message in echoed
        assert f"the loss of {file.name} is divided by" in message and "train it as one process" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, Ranks()),
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, Ranks(2, 4, 2)),
        ({"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": "1"}, Ranks(restarts=1)),
        ({"RANK": "7"}, Ranks()),  # whatever that means
        ({"WORLD_SIZE": "2"}, "RANK: is not set"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK: 'x' is not an integer"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2, WORLD_SIZE=2"),
    ],
)
def test_the_place_among_ranks_is_read(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], found: Ranks | str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if isinstance(found, Ranks):
        assert current() == found
    else:
        with pytest.raises(SettingsError, match=found):
            current()
