"""Prediction compared with the plain loop, in memory: the grid image whole, and 1,000 images in batches for validation.

Besides, from files: ``run.test_one`` on the grid image and ``run.test_db`` over a database, which measures, too; against the
plain loop in memory, which reads and measures nothing. In PyTorch also ``run.test_db`` of the U-Net on class masks, against a
plain loop in memory that computes loss, classes and confusion matrix.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np
from pairing import Contender, by_turns

import multiseg
from multiseg.worker.client import MEMORY
from parts.figures import Figure, ratio
from parts.setup import RATE, Bench, closing

LEAST = 2.0
MASKS, SIDE, BATCH, IGNORED = 100, 192, 4, 255  # of the scene shapes


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
        if name == "torch":
            yield _of_masks(bench)


def _of_masks(bench: Bench) -> Figure:
    images = multiseg.create_images(bench.folder / "shapes", MASKS, SIDE, seed=1, scene="shapes")
    dataset = multiseg.Dataset.create(
        bench.folder / "masks", input=images / "input", target=images / "target", labels="classes",
        classes=images / "classes.txt", ignore=IGNORED, val_percent=0, seed=1,
    )  # fmt: skip
    features, labels = dataset.train.read(range(MASKS))
    path = bench.folder / "masks.npz"
    np.savez(path, features=features.astype(np.float32), labels=labels)
    job = multiseg.Job(
        dataset=dataset, backend="torch", model="unet", batch_size=BATCH, val_batch_size=BATCH, loss="cross_entropy",
        epochs=1, learning_rate=RATE, seed=1,
    )  # fmt: skip
    given = {"images": str(path), "batch_size": BATCH, "classes": len(dataset.labels.names), "ignored": IGNORED}
    with ExitStack() as stack, job.train(bench.folder / "run-masks", progress=False) as run:
        plain = closing(stack, Contender("plain_torch_masks", MEMORY, threads=len(os.sched_getaffinity(0)), **given))
        test = partial(run.test_db, dataset.path / "train_db/features")
        turns = {"plain": partial(plain.turn, bench.seconds), "run.test_db": partial(_seconds, test)}
        times = by_turns(turns, bench.rounds)
    return ratio("torch, U-Net on class masks: plain in memory / run.test_db", times, "plain", "run.test_db", "higher")


def _seconds(test: Callable[[], object]) -> float:
    began = time.perf_counter()
    test()
    return time.perf_counter() - began
