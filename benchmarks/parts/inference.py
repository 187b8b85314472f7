"""Prediction compared with the plain loop, in memory: the grid image whole, and 1,000 images in batches for validation.

Besides, from files: ``run.test_one`` on the grid image and ``run.test_db`` over a database, which measures, too; against the
plain loop in memory, which reads and measures nothing.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from statistics import median

from pairing import by_turns

import multiseg
from parts.figures import Figure, ratio
from parts.setup import RATE, Bench

LEAST = 2.0


def figures(bench: Bench) -> Iterator[Figure]:
    count = 256 if bench.quick else 1000
    dataset, grid = bench.dataset(count, val_percent=0), bench.images(400) / "grid.png"
    whole = bench.grid()
    for name in bench.backends:
        job = multiseg.Job(dataset=bench.dataset(40), backend=name, epochs=1, learning_rate=RATE, seed=1)
        with job.train(bench.folder / f"run-{name}", progress=False) as run:
            tests = {
                "the grid image": ((whole, whole), 1, "run.test_one", partial(run.test_one, grid, resize=False)),
                f"{count} images": (
                    dataset.train.read(range(count)),
                    run.settings["val_batch_size"],
                    "run.test_db",
                    partial(run.test_db, dataset.path / "train_db/features"),
                ),
            }
            for what, (images, size, call, test) in tests.items():
                with ExitStack() as stack:
                    rivals = bench.pair(stack, name, "test", size, **bench.images_file(name, *images))
                    turns = {key: partial(each.turn, bench.seconds) for key, each in rivals.items()}
                    times = by_turns(turns | {call: partial(_seconds, test)}, bench.rounds)
                yield ratio(f"{name}, {what}: plain / multiseg", times, "plain", "multiseg", "higher", LEAST)
                row = ratio(f"{name}, {what}: plain in memory / {call}", times, "plain", call, "higher")
                pace = {"images/s": len(images[0]) / median(times[call])}
                yield replace(row, medians={**row.medians, **pace})


def _seconds(test: Callable[[], object]) -> float:
    began = time.perf_counter()
    test()
    return time.perf_counter() - began
