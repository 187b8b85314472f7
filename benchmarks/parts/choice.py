"""An epoch of 9,000 pairs compared with what a user would choose instead, which reads the PNG files directly.

A PyTorch script with Dataset and DataLoader and the plain module, and Keras' ``fit`` on the same framework; multiseg by
``job.train`` from the LMDB dataset. All shuffle, none validates, and none's start counts. An epoch is cut into turns: at batch
32 all of it is run, at the batch size of the backend's own recipe a quarter.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from statistics import median

from pairing import Contender, by_turns

from parts.figures import Figure, ratio
from parts.setup import PLAIN, RATE, Bench, closing

LEAST = 3.0
RIVALS = {
    "torch": {
        "PyTorch script": ("plain_torch_folder", {"workers": 0}),
        "PyTorch script, 2 workers": ("plain_torch_folder", {"workers": 2}),
        "Keras": ("plain_keras", {}),
    },
    "tensorflow": {"Keras": ("plain_keras", {})},
}


def figures(bench: Bench) -> Iterator[Figure]:
    images = 1536 if bench.quick else 9000
    for name in bench.backends:
        if name not in RIVALS:  # Caffe: nobody would pick it anew
            continue
        own = bench.settings(name).backend.batch_size
        for size, turns, rounds in ((32, 3, 2),) if bench.quick else ((own, 12, 3), (32, 6, 6)):
            times = _measure(bench, name, size, images, turns, rounds)
            scripts = [rival for rival in times if rival.startswith("PyTorch")]
            best = min(scripts, key=lambda script: median(times[script]), default=None)
            for rival in (best, "Keras"):
                if rival:
                    yield ratio(f"{name} batch {size}: {rival} / job.train", times, rival, "job.train", "higher", LEAST)


def _measure(bench: Bench, name: str, size: int, images: int, turns: int, rounds: int) -> dict[str, list[float]]:
    dataset = bench.dataset(images, val_percent=0)
    assert dataset.mean_pixel is not None
    common = {"folder": str(bench.images(images)), "mean": float(dataset.mean_pixel[0]), "batch_size": size}
    common |= {"threads": bench.settings(name).threads, "rate": RATE}
    environment = PLAIN.get(name, {}) | {"KERAS_BACKEND": name}
    with ExitStack() as stack:
        job, steps = bench.job(stack, name, dataset, size, 1 + rounds // turns, turns)
        made = {"job.train": job}
        for rival, (script, options) in RIVALS[name].items():
            contender = closing(stack, Contender(script, environment, **common, **options))
            made[rival] = partial(contender.run, steps)
        return by_turns(made, rounds)
