"""What is cut and made to fail: each function does one thing that writes files, with marks at what a user may rely on.

They run in a process of the recorder. ``mark("1")`` says that the first version of the output is complete, "2" the second.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import multiseg
from helpers import lending
from helpers.power.recorder import mark
from multiseg.cluster import wire
from multiseg.cluster.mirror import Mirror
from multiseg.inference.outputs import writing
from multiseg.run.folder import RunFolder

MODULES = ["helpers.power.programs", "multiseg.job.job", "multiseg.cli", "multiseg.training.train", "multiseg.dataset.creation",
           "multiseg.report.page", "multiseg.conversion", "multiseg.exporting", "fsspec.implementations.local"]  # fmt: skip

Event = dict[str, Any]


def settings(dataset: str, backend: str, model: str | None) -> dict[str, Any]:
    """The settings of the trainings: 6 images, 3 steps an epoch, 2 epochs, a snapshot after each."""
    return {
        "dataset": dataset, "backend": backend, "model": model, "epochs": 2, "batch_size": 2, "seed": 5, "threads": 1,
        "recipe": "equal", "solver": "adam", "learning_rate": 1e-3,
    }  # fmt: skip


def create(folder: str, images: str) -> None:
    """Create a dataset."""
    multiseg.Dataset.create(
        Path(folder, "data/sets/out"),
        input=f"{images}/input",
        target=f"{images}/target",
        val_percent=40,
        seed=1,
        workers=1,
    )
    mark("1")


def train(folder: str, dataset: str, backend: str, model: str | None, keep: str = "last", resume: bool = False) -> None:
    """Train, with a mark after each snapshot."""

    def progress(event: Event) -> None:
        if event["event"] == "snapshot":
            mark(f"snapshot {event['iteration']}")

    with lending.everywhere():
        job = multiseg.Job(**settings(dataset, backend, model))
        job.train(Path(folder, "runs/a/run"), progress=progress, resume=resume).close()
        mark("end")


def convert(folder: str, weights: list[str], to: str, out: str, network: str | None = None) -> None:
    """Write weights in a format, then other weights over them."""
    with lending.everywhere():
        for number, path in enumerate(weights):
            multiseg.convert(path, to, Path(folder, out), network=network, input_shape=network and (1, 8, 8))
            mark(f"{number + 1}")


def export(folder: str, networks: list[str], to: str, out: str) -> None:
    """Write a network as source, then another one over it."""
    for number, path in enumerate(networks):
        multiseg.export(path, to, Path(folder, out), input_shape=(1, 8, 8))
        mark(f"{number + 1}")


def compare(folder: str, runs: list[str]) -> None:
    """Write the page of the first run, then that of all over it."""
    for number in range(len(runs)):
        multiseg.compare(runs[: number + 1], images=0).to_html(Path(folder, "pages/page.html"))
        mark(f"{number + 1}")


def test_db(folder: str, run: str, database: str) -> None:
    """Write the outputs for a database as a dataset."""
    with (
        lending.everywhere(),
        multiseg.Run.open(run) as opened,
        writing(Path(folder, "data/sets/out"), "lmdb") as write,
    ):
        opened.test_db(database, each=lambda index, output: write(f"{index:08}", output) and None)
    mark("1")


def cache(folder: str, dataset: str) -> None:
    """Copy a dataset from a URL into the store."""
    os.environ["XDG_CACHE_HOME"] = folder
    multiseg.Dataset.open(f"file://{dataset}")
    mark("1")


def mirror(folder: str, run: str) -> None:
    """Copy a run folder as the cluster's program does: when it has its first snapshot, and when it has ended."""
    RunFolder.create(Path(folder, "runs/a/run"))
    copy = Mirror(Path(folder, "runs/a/run"), "last")
    read: Callable[[list[wire.Place]], list[bytes | None]] = lambda places: wire.read(Path(run), places)  # noqa: E731
    listing = wire.listing(Path(run))
    first = {name: stamp for name, stamp in listing.items() if "epoch-0002" not in name and name != "summary.json"}
    copy.update(first, read, ended=True)
    mark("snapshot 3")
    copy.update(listing, read, ended=True)
    mark("snapshot 6")
    mark("end")


def repeated(folder: str, program: str, times: int, arguments: dict[str, Any]) -> list[tuple[bool, str, str]]:
    """Run a program several times, each in a folder of its own; return its errors.

    For each time: whether the error is one of multiseg, its type, and its message, or the traceback of one of an unknown type.
    """
    results = []
    for number in range(times):
        mark(f"begin {number}")
        try:
            globals()[program](folder=f"{folder}/{number}", **arguments)
            results.append((True, "", ""))
        except Exception as error:
            typed = isinstance(error, multiseg.MultisegError)
            file = isinstance(error, OSError) and error.filename is not None
            results.append((typed, type(error).__name__, str(error) if typed or file else traceback.format_exc()))
        mark(f"ended {number}")
    return results


def careless(folder: str, way: str) -> None:
    """Write a file twice as one should not, in a way that the tests of power cuts must find, or as one should."""
    file, part = Path(folder, "file"), Path(folder, ".file.part")
    for number in (1, 2):
        with (file if way == "in place" else part).open("wb") as opened:
            opened.write(bytes([number]) * 2000)
            opened.flush()
            if way != "without fsync":
                os.fsync(opened.fileno())
        if way != "in place":
            part.rename(file)
        if way != "without fsync of the folder":
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        mark(str(number))
