"""job.train / bare steps: the overhead of feed, messages, schedule, events, history and progress.

LMDB with png features, shuffled; bare steps are the backend's network in one process, on a batch that lies ready.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from pairing import by_turns

from parts.figures import Figure, ratio
from parts.setup import Bench, closing

IMAGES = {4: 400, 32: 960}  # of an epoch
MOST = 1.05


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
