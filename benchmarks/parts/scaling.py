"""Cost by pixels and by number of images, from folder to trained network: time should be linear, and memory constant.

The program's memory is its own (anonymous) one: pages of the database that the system's cache holds are no part of it.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from pairing import FOLDER

from parts.figures import Figure
from parts.setup import RATE, Bench

PIXELS, QUICK_PIXELS = {32: 320, 64: 320, 128: 160, 256: 64}, {32: 80, 128: 40}  # a side -> how many images
COUNTS, QUICK_COUNTS = (1_000, 10_000, 30_000), (250, 2_500)
BATCH = {"pixels": 8, "images": 32}
LINEAR, FLAT = 1.25, 1.1  # at most so much more for each pixel or image, and memory


def figures(bench: Bench) -> Iterator[Figure]:
    pixels, counts = (QUICK_PIXELS, QUICK_COUNTS) if bench.quick else (PIXELS, COUNTS)
    for name in bench.backends:
        found = {side: _measure(bench, name, count, side, BATCH["pixels"], 2) for side, count in pixels.items()}
        for side, each in found.items():
            yield _row(f"{name}, {side}x{side} pixels", each, {"ns a pixel": 1e9 * each["train"] / side**2})
        first, *_, last = found
        growth = found[last]["train"] / last**2 / (found[first]["train"] / first**2)
        yield Figure(f"{name}: a pixel's cost at {last}x{last} / {first}x{first}", growth, "x", "lower", LINEAR)

        found = {count: _measure(bench, name, count, 32, BATCH["images"], 1 + (count <= 1_000)) for count in counts}
        for count, each in found.items():
            yield _row(f"{name}, {count:,} images", each, {})
        first, *_, last = found
        for key, what, most in (
            ("create", "an image's cost in creation", LINEAR), ("train", "an image's cost in training", LINEAR),
            ("program", "the program's memory", FLAT), ("worker", "the worker's memory", FLAT),
        ):  # fmt: skip
            growth = found[last][key] / found[first][key]
            yield Figure(f"{name}: {what} at {last:,} / {first:,} images", growth, "x", "lower", most)


def _row(name: str, each: dict[str, float], more: dict[str, float]) -> Figure:
    raw = {"create ms an image": 1e3 * each["create"], **more}
    raw |= {f"{process} peak MB": each[process] for process in ("program", "worker")}
    return Figure(f"{name}: training", 1e3 * each["train"], " ms an image", "lower", medians=raw)


def _measure(bench: Bench, name: str, count: int, side: int, batch_size: int, epochs: int) -> dict[str, float]:
    """Seconds an image of creation and of the last epoch, and memory in MB; in a fresh process, from a folder of PNGs."""
    folder = tempfile.mkdtemp(dir=bench.folder)
    job = {"backend": name, "batch_size": batch_size, "epochs": epochs, "learning_rate": RATE, "seed": 1}
    job |= {"snapshot_interval": epochs, "keep": "last"}
    given = {
        "images": str(bench.images(count, side)),
        "dataset": f"{folder}/dataset",
        "folder": f"{folder}/run",
        "job": job,
    }
    command = [sys.executable, FOLDER / "multiseg_scale.py", json.dumps(given)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    shutil.rmtree(folder)
    found: dict[str, float] = json.loads(answer)
    return found
