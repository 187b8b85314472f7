"""job.train / bare steps: the overhead of feed, messages, schedule, events, history and progress.

LMDB with png features, shuffled; bare steps are the backend's network in one process, on a batch that lies ready. The same for
the U-Net on JPEG photographs that are flipped, scaled and cropped.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import numpy as np
from dataset import photographs
from pairing import by_turns

import multiseg
from multiseg.layout import Layout
from multiseg.training.preparation import spec_of
from parts.figures import Figure, ratio
from parts.setup import Bench, closing, network_process

IMAGES = {4: 400, 32: 960}  # of an epoch
MOST = 1.05
COUNT, BATCH, SIDE = 96, 8, 128  # of the photographs, and of their crops
CLASSES = ("background", "object")


def figures(bench: Bench) -> Iterator[Figure]:
    for name in bench.backends:
        for size in bench.batches:
            dataset = bench.dataset(IMAGES[size] // (2 if bench.quick else 1), val_percent=0)
            with ExitStack() as stack:
                given = bench.images_file(name, *dataset.train.read(range(size)))
                bare = closing(stack, bench.ours(name, "train", size, **given))
                job, steps = bench.job(stack, name, dataset, size, epochs=bench.rounds + 1)
                turns = {"job": job, "bare": partial(bare.run, steps)}
                times = by_turns(turns, bench.rounds)
            yield ratio(f"{name} batch {size}: job.train / bare steps", times, "job", "bare", "lower", MOST)
        yield _of_photographs(bench, name)


def _of_photographs(bench: Bench, name: str) -> Figure:
    dataset = _dataset(bench)
    options = {
        "model": "unet", "loss": "cross_entropy", "crop": SIDE, "augment": {"flip": "horizontal", "scale": (0.5, 2)},
    }  # fmt: skip
    if name == "caffe":  # whose file has its loss
        del options["loss"]
    with ExitStack() as stack:
        job, steps = bench.job(stack, name, dataset, BATCH, bench.rounds + 1, **options)
        settings = multiseg.Job(dataset=dataset, backend=name, batch_size=BATCH, seed=1, **options).resolve(dataset)
        spec = spec_of(settings, (3, SIDE, SIDE), (1, SIDE, SIDE), "classes")
        draw = np.random.default_rng(0)
        layout = Layout(settings.backend.data_order)
        path = bench.folder / f"{name}-crops.npz"
        np.savez(
            path, features=layout.features(draw.normal(size=(BATCH, 3, SIDE, SIDE))),
            labels=layout.labels(draw.integers(0, len(CLASSES), (BATCH, 1, SIDE, SIDE))),
        )  # fmt: skip
        bare = closing(stack, network_process(settings, spec, "train", BATCH, images=str(path), size=(SIDE, SIDE)))
        times = by_turns({"job": job, "bare": partial(bare.run, steps)}, bench.rounds)
    return ratio(f"{name} U-Net, photographs: job.train / bare steps", times, "job", "bare", "lower", MOST)


def _dataset(bench: Bench) -> multiseg.Dataset:
    folder = bench.folder / "photographs"
    if folder.exists():
        return multiseg.Dataset.open(folder / "dataset")
    images = photographs(folder / "images", COUNT, 500, 375)
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return multiseg.Dataset.create(
        folder / "dataset", input=images / "input", target=images / "target", labels="classes", classes=folder / "classes.txt",
        label_map="0:0,255:1", feature_encoding="jpg", label_encoding="png", val_percent=0, seed=1,
    )  # fmt: skip
