"""Measure what `multiseg watch` costs a training: one training, watched and not watched by turns.

python benchmarks/watching.py [--backend torch] [--turns 12] [--seconds 10]

The training is the tutorial's network at its batch size. Its processor time per step is read from Linux (/proc), with the
worker's, so other load on the machine counts little. While it is watched, a client reads the events as a browser does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import multiseg
from multiseg.run.names import PROGRESS

TICK = os.sysconf("SC_CLK_TCK")  # per second, the unit of times in /proc/PID/stat


def main() -> None:
    """Print the training's processor time per step, watched over not watched, and the server's own processor time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--turns", type=int, default=12, help="pairs of turns")
    parser.add_argument("--seconds", type=float, default=10, help="of one turn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, training(Path(name), options.backend) as (process, run):
        ratios, own = [], []
        for number in range(options.turns):
            taken = {}
            for watched in (number % 2 == 0, number % 2 == 1):  # so that a change of the machine favours neither
                if not watched:
                    taken[watched] = turn(process.pid, run, options.seconds)
                    continue
                with watching(run) as server:
                    began, used = time.monotonic(), processor_time(server.pid)
                    taken[watched] = turn(process.pid, run, options.seconds)
                    own.append((processor_time(server.pid) - used) / (time.monotonic() - began))
            ratios.append(taken[True] / taken[False])
    error = statistics.stdev(ratios) / len(ratios) ** 0.5
    print(f"a step of {options.backend} takes {statistics.median(ratios):.4f} of its processor time when it is watched "
          f"(median of {len(ratios)} pairs; {min(ratios):.3f} to {max(ratios):.3f}; mean {statistics.mean(ratios):.4f}, standard "
          f"error {error:.4f})")  # fmt: skip
    print(f"the server itself uses {100 * statistics.median(own):.2f} % of one core")


@contextlib.contextmanager
def training(folder: Path, backend: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start a training that does not end by itself; wait until it is in its steps."""
    images = multiseg.create_images(folder / "images", count=1000, seed=1)
    multiseg.Dataset.create(folder / "dataset", input=images / "input", target=images / "target", seed=1)
    run = folder / "run"
    command = [sys.executable, "-m", "multiseg.cli", "train", "--dataset", folder / "dataset", "--backend", backend]
    options = [
        "--run",
        run,
        "--epochs",
        "10000",
        "--snapshot-interval",
        "10000",
        "--val-interval",
        "10000",
        "--threads",
        "1",
    ]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    try:
        while not steps(run):
            if process.poll() is not None:
                sys.exit(f"the training ended with status {process.returncode}")
            time.sleep(0.5)
        time.sleep(10)  # the first steps are slower
        yield process, run
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


@contextlib.contextmanager
def watching(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the server, and read its events in a thread."""
    server = subprocess.Popen([sys.executable, "-m", "multiseg.cli", "watch", run], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().strip()

    def read() -> None:
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"{address}events") as events:
            for _ in events:
                pass

    urllib.request.urlopen(address).read()
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield server
    finally:
        server.terminate()
        server.wait()
        reader.join()


def turn(pid: int, run: Path, seconds: float) -> float:
    """Return the processor time of one step, in seconds: of the program and its worker."""
    done, used = mark(pid, run)
    time.sleep(seconds)
    done_then, used_then = mark(pid, run)
    return (used_then - used) / (done_then - done)


def mark(pid: int, run: Path) -> tuple[int, float]:
    """Return the step that the run folder states, and the processor time until then; wait for the next that it states."""
    before = steps(run)
    while (now := steps(run)) == before:
        time.sleep(0.005)
    return now, processor_time(pid)


def steps(run: Path) -> int:
    """Return the number of the last step that the run folder states; 0 before the first."""
    try:
        return int(json.loads((run / PROGRESS).read_text())["iteration"])
    except (OSError, ValueError, KeyError):
        return 0


def processor_time(pid: int) -> float:
    """Return the seconds that a process and its descendants have computed."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK + sum(processor_time(int(child)) for child in children)


if __name__ == "__main__":
    main()
