"""Time of a fresh process to import multiseg, to print the command line's help, and to test one image with a trained FCN."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import multiseg
from parts.figures import Figure, quartiles
from parts.setup import Bench

PROCESSES = 15
WHAT = {"import multiseg": (["-c", "import multiseg"], 0.2), "multiseg --help": (["-m", "multiseg.cli", "--help"], 0.4)}
TEST_ONE = {"torch": 1.5}  # seconds


def figures(bench: Bench) -> Iterator[Figure]:
    """Of whole processes, the interpreter's own start included."""
    for name, (arguments, most) in WHAT.items():
        yield _of_process(name, arguments, most)
    for backend in bench.backends:
        run = bench.folder / f"{backend}-run"
        multiseg.Job(dataset=bench.dataset(40), backend=backend, epochs=1, seed=1).train(run, progress=False).close()
        image = next((bench.images(40) / "input").iterdir())
        arguments = ["-m", "multiseg.cli", "test-one", str(run), str(image), "-o", str(bench.folder / "output.png")]
        yield _of_process(f"{backend}: multiseg test-one", arguments, TEST_ONE.get(backend))


def _of_process(name: str, arguments: list[str], most: float | None) -> Figure:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    seconds = []
    for _ in range(PROCESSES):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - began)
    return Figure(name, statistics.median(seconds), " s", "lower", most, quartiles(seconds))
