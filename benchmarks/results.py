"""Measure speed and memory of testing: a database as a stream and images one by one, tiles and the whole image.

python benchmarks/results.py                     # every installed backend, 10,000 images
python benchmarks/results.py torch -c 1000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import multiseg
from multiseg.run.run import Run

SIDE, TILE = 2048, 512


def resident() -> float:
    """Return the memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024


def stream(run: Run, datasets: dict[int, multiseg.Dataset]) -> None:
    for count, dataset in datasets.items():
        result = run.test_db(dataset.path / "train_db" / "features", each=lambda index, output: None)
        peak = run.worker().call("memory")
        print(f"  stream of {count:6,}: {result['images_per_second']:7.0f} images/s; memory {resident():5.0f} MB here, "
              f"peak {peak:5.0f} MB in the backend's process")  # fmt: skip


def one_by_one(run: Run, images: Path, count: int) -> None:
    paths = sorted((images / "input").iterdir())[:count]
    for name, test in (("one by one", lambda: [run.test_one(path) for path in paths]),
                       ("as a list ", lambda: run.test_list(paths))):  # fmt: skip
        start = time.perf_counter()
        test()
        print(f"  files {name}: {len(paths) / (time.perf_counter() - start):7.0f} images/s")


def large(folder: Path, image: Path) -> None:
    made = {}
    for name, options in (("in tiles", {"tile": TILE}), ("whole", {})):
        with Run.open(folder) as run:
            start = time.perf_counter()
            made[name] = run.test_one(image, resize=False, **options).array
            seconds, peak = time.perf_counter() - start, run.worker().call("memory")
        print(f"  {SIDE}x{SIDE} {name:8}: {seconds:5.1f} s, peak {peak:6.0f} MB in the backend's process")
    print(
        f"  largest difference: {np.abs(made['in tiles'] - made['whole']).max():.2g} of {np.abs(made['whole']).max():.3g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backends", nargs="*")
    parser.add_argument("-c", "--count", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        images = multiseg.create_images(work / "images", count=arguments.count, grid=SIDE // 32, seed=1)
        datasets = {}
        for count in (arguments.count // 10, arguments.count):
            part = images if count == arguments.count else multiseg.create_images(work / f"images{count}", count=count)
            datasets[count] = multiseg.Dataset.create(
                work / f"db{count}", input=part / "input", target=part / "target", val_percent=0
            )
        with Image.open(images / "grid.png") as grid:
            assert grid.size == (SIDE, SIDE)
        for backend in arguments.backends or [found.name for found in multiseg.backends() if found.available]:
            job = multiseg.Job(dataset=next(iter(datasets.values())), backend=backend, epochs=1, batch_size=32, seed=1)
            with job.train(work / backend, progress=False) as run:
                print(f"{run.title} {run.environment['framework']}")
                stream(run, datasets)
                one_by_one(run, images, 500)
            large(work / backend, images / "grid.png")


if __name__ == "__main__":
    main()
