"""Train a table of jobs on a Dask cluster whose parts are killed all the time: ``python -m helpers.chaos --minutes 60``.

Every few seconds a worker, the scheduler (its workers end with it), or the program is killed and started again. A table that is
finished before the time is over is followed by the same table in another folder. Each job must end once, with the history and the
weights of a local training.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import multiseg
from helpers.dask_cluster import DaskCluster

FOURTH = Path(__file__).parents[1] / "fourth_backend"
TIMED = ("seconds", "val_seconds", "images_per_second")
WORKERS = 3
LAST_TRIES = 10  # starts of the program after the last kill: Dask gives a job up whose workers died four times
LAST_SECONDS = 600  # that each may take


@dataclass
class Result:
    """What happened: kills by their kind, starts of the program, tables, and a line for each violation."""

    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    tables: int = 0
    jobs: int = 0
    attempts: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        return (
            f"{sum(self.kills.values())} kills ({kills}), {self.starts} starts of the program, {self.tables} tables, "
            f"{self.jobs} jobs, {self.attempts} attempts, {len(self.problems)} violations"
        )


class Chaos:
    """A cluster and a program in ``folder``, with kills in an order that ``seed`` determines."""

    def __init__(self, folder: Path, dataset: Path, jobs: int, seed: int) -> None:
        self.folder, self.count = folder, jobs
        self._draw, self._numbers = random.Random(seed), iter(range(1_000_000))
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(FOURTH), os.environ.get("PYTHONPATH")])),
            **{f"MULTISEG_{name}_PYTHON": "/bin/false" for name in ("CAFFE", "TORCH", "TENSORFLOW")},
        }
        self._table = (
            f"[[job]]\nname = 'j'\ndataset = '{dataset}'\nbackend = 'numpy'\nepochs = 8\nsolver = 'adam'\nthreads = 1\n"
            f"snapshot_interval = 0.5\naugment = {{flip = 'both'}}\nseed = {list(range(1, jobs + 1))}\n"
        )
        self.result = Result()
        (folder / "dask").mkdir()
        self._cluster = DaskCluster(folder / "dask", self._environment)
        self._add_workers(WORKERS)

    def run(self, seconds: float, pause: float) -> Result:
        """Kill parts for some seconds, then let the last table finish; return what happened."""
        local = self._local()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self._train(end, pause, local)
        finally:
            self._cluster.close()
        return self.result

    def _train(self, end: float, pause: float, local: dict[str, Any]) -> None:
        """Train one table while parts are killed, and check it."""
        self.result.tables += 1
        file = self.folder / f"table{self.result.tables}.toml"
        file.write_text(f"runs = 'runs{self.result.tables}'\n{self._table}")
        program = self._start(file)
        due = time.monotonic() + pause
        while time.monotonic() < end:
            time.sleep(0.2)
            if program.poll() == 0:
                break
            if program.poll() is not None:  # e.g. a job whose workers died four times
                program = self._start(file)
            if time.monotonic() >= due:
                program = self._kill(program, file)
                due = time.monotonic() + pause
        for _ in range(LAST_TRIES):
            if program.wait(LAST_SECONDS) == 0:
                break
            program = self._start(file)
        else:
            self.result.problems.append(f"{file.name}: not finished after {LAST_TRIES} starts without kills")
            program.kill()
        self._check(file, local)

    def _kill(self, program: subprocess.Popen[bytes], file: Path) -> subprocess.Popen[bytes]:
        kind = self._draw.choice(["worker", "worker", "scheduler", "program"])
        self.result.kills[kind] += 1
        if kind == "program":
            program.kill()
            program.wait()
            return self._start(file)
        if kind == "worker":
            self._cluster.kill(self._draw.choice(sorted(self._cluster.workers)))
            self._add_workers(1)
            return program
        for name in ["scheduler", *self._cluster.workers]:
            self._cluster.kill(name)
        self._cluster.start_scheduler()
        self._add_workers(WORKERS)
        return program

    def _add_workers(self, count: int) -> None:
        for _ in range(count):
            self._cluster.add_worker(f"w{next(self._numbers)}", 1)

    def _start(self, file: Path) -> subprocess.Popen[bytes]:
        self.result.starts += 1
        command = [sys.executable, "-m", "multiseg", "train", str(file), "--scheduler", self._cluster.address, "--json"]
        with (self.folder / f"{file.stem}.events").open("ab") as events, (self.folder / "errors").open("ab") as errors:
            events.write(b"\n")  # after the part of a line that a killed program has left
            return subprocess.Popen(command, env=self._environment, stdout=events, stderr=errors)

    def _local(self) -> dict[str, Any]:
        """Train the jobs here, and return what they learned by name."""
        file = self.folder / "local.toml"
        file.write_text(f"runs = 'local'\n{self._table}")
        subprocess.run(
            [sys.executable, "-m", "multiseg", "train", str(file), "--json"],
            env=self._environment,
            check=True,
            capture_output=True,
        )
        return {folder.name: learned(folder) for folder in (self.folder / "local").iterdir()}

    def _check(self, file: Path, local: dict[str, Any]) -> None:
        """Note each job that did not end once, or not as the local training."""
        ended: Counter[str] = Counter()
        errors: dict[str, str] = {}
        for line in (self.folder / f"{file.stem}.events").read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # of a program that was killed while it wrote
                continue
            name = event.get("job", "")
            errors[name] = event.get("error") or errors.get(name, "")
            if event["event"] == "finished":
                ended[name] += 1
            elif event["event"] == "attempt":
                self.result.attempts += 1
                if ended[name]:
                    self.result.problems.append(f"{file.stem}: {name} was trained again after it had finished")
        runs = self.folder / f"runs{self.result.tables}"
        for name, expected in local.items():
            self.result.jobs += 1
            if ended[name] > 1:
                self.result.problems.append(f"{file.stem}: {name} finished {ended[name]} times")
            try:
                if learned(runs / name) != expected:
                    self.result.problems.append(f"{file.stem}: {name} differs from the local training")
            except (multiseg.MultisegError, OSError) as error:
                entries = sorted(entry.name for entry in (runs / name).iterdir()) if (runs / name).is_dir() else "none"
                self.result.problems.append(
                    f"{file.stem}: {name}: {error}; its last error: {errors.get(name)}; its files: {entries}"
                )


def learned(folder: Path) -> dict[str, Any]:
    """Return the rows of a finished run without times, and its weights."""
    run = multiseg.Run.open(folder)
    assert run.snapshot is not None
    rows = [{key: row[key] for key in row if key not in TIMED} for row in run.history]
    weights = (run.snapshot.path / "network.npz").read_bytes()
    return {"rows": rows, "weights": weights, "status": run.summary["status"]}


def main() -> int:
    """Print what happened; return 1 if a job did not end as it must."""
    parser = argparse.ArgumentParser(description="Kill parts of a cluster while it trains a table of jobs.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--pause", type=float, default=5, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="multiseg-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        multiseg.create_images(folder / "images", count=120, size=32, seed=1)
        images = folder / "images"
        multiseg.Dataset.create(folder / "dataset", input=images / "input", target=images / "target", seed=1)
        result = Chaos(folder, folder / "dataset", options.jobs, options.seed).run(options.minutes * 60, options.pause)
        print(result, *result.problems, sep="\n", flush=True)
        if result.problems:
            print((folder / "errors").read_text(errors="replace")[-5000:])
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
