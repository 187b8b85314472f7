"""Time of a fresh process to import multiseg, and to print the command line's help."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from parts.figures import Figure, quartiles
from parts.setup import Bench

PROCESSES = 15
WHAT = {"import multiseg": (["-c", "import multiseg"], 0.2), "multiseg --help": (["-m", "multiseg.cli", "--help"], 0.4)}


def figures(bench: Bench) -> Iterator[Figure]:
    """Of whole processes, the interpreter's own start included."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for name, (arguments, most) in WHAT.items():
        seconds = []
        for _ in range(PROCESSES):
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)
            seconds.append(time.perf_counter() - began)
        yield Figure(name, statistics.median(seconds), " s", "lower", most, quartiles(seconds))
