"""Measure distributed training: the time of a step and of the sum of its gradients, and the batch size from which it is faster.

python benchmarks/ranks.py              # a few minutes; docs/cluster.md explains the figures
python benchmarks/ranks.py --quick
"""

from __future__ import annotations

import argparse
import math
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pairing import Contender, by_turns, medians
from parts.figures import HEADER, in_ms, quartiles, ratio
from parts.setup import RATE, Bench, closing

from multiseg.training.preparation import network_spec
from multiseg.worker.client import environment

RANKS = 2
BATCHES = (8, 32, 128)  # of all ranks
# assumed links: bytes per second of each rank, one way, and seconds per message
LINKS = {
    "1 Gbit/s": (125e6, 100e-6),
    "10 Gbit/s": (1.25e9, 50e-6),
    "100 Gbit/s": (12.5e9, 20e-6),
    "NVLink, 450 GB/s": (450e9, 10e-6),
}
SIZES = (2, 4, 8)
# the tutorial's network, on images of 32x32: outputs, inputs, side of the kernel, and positions where it is applied
LAYERS = ((32, 1, 3, 32 * 32), (1024, 32, 16, 4), (1, 1024, 16, 4))
GPU = 25e12  # operations a second in float32 that a large GPU may get out of such products; assumed


class Together:
    """The ranks of one training as contenders: each runs the same at the same time."""

    def __init__(self, stack: ExitStack, variables: dict[str, str], **options: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        common = {
            **variables, "WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # fmt: skip

        def start(rank: int) -> Contender:
            return Contender("multiseg_rank", {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, **options)

        self._pool = stack.enter_context(ThreadPoolExecutor(RANKS))
        self.members = [closing(stack, each) for each in self._pool.map(start, range(RANKS))]

    def run(self, count: int, unit: str = "") -> float:
        """Return the seconds for one unit of the slowest rank."""
        return max(self._pool.map(lambda each: each.run(count, unit), self.members))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), ("torch",), options.quick)
        print(HEADER, flush=True)
        steps: dict[int, float] = {}
        sums: list[float] = []
        for batch_size in BATCHES:
            middle = measured(bench, batch_size)
            steps[batch_size] = middle["one"]
            sums.append(middle["sums"])
    on_paper(steps, min(sums), parameters())


def measured(bench: Bench, batch_size: int) -> dict[str, float]:
    """Return the median seconds of a step and its parts, and print their ratios."""
    settings = bench.settings("torch", batch_size)
    spec = network_spec(settings, bench.dataset(400)).to_json()
    data = bench.dataset(400).train
    with ExitStack() as stack:
        images = bench.images_file("torch", *data.read(range(batch_size)))
        one = closing(stack, bench.ours("torch", "train", batch_size, **images))
        share = batch_size // RANKS
        images = bench.images_file("torch", *data.read(range(share)))
        two = Together(
            stack, environment(settings.backend, 1), spec={**spec, "threads": 1}, batch_size=share, rate=RATE, **images
        )
        count = max(1, 160 // batch_size)
        turns = {
            "one": partial(one.run, count),
            "two": partial(two.run, count),
            "alone": partial(two.run, count, "alone"),
            "sums": partial(two.run, count, "sums"),
        }
        times = by_turns(turns, bench.rounds * 3, warm=3)
    middle = medians(times)
    print(ratio(f"batch {batch_size}: two ranks of 1 thread / one process of 2", times, "two", "one", "lower"))
    print(
        ratio(
            f"batch {batch_size}: half of it, 1 thread each at once / all of it, 2 threads",
            times,
            "alone",
            "one",
            "lower",
        )
    )
    low, high = quartiles(times["sums"])
    print(
        f"| batch {batch_size}: sum of the gradients | {1e3 * middle['sums']:.1f} ms | | {1e3 * low:.1f} to {1e3 * high:.1f} | |"
    )
    predicted = middle["alone"] + middle["sums"]
    print(
        f"| batch {batch_size}: a rank's step, predicted without overlap / measured | {predicted / middle['two']:.2f}x | | | "
        + ", ".join(f"{key} {value:.1f}" for key, value in in_ms({"predicted": predicted, **middle}).items())
        + " |",
        flush=True,
    )
    return middle


def parameters() -> int:
    """Return the number of parameters of the tutorial's network."""
    return sum(outputs * (inputs * kernel**2 + 1) for outputs, inputs, kernel, _ in LAYERS)


def operations() -> int:
    """Of an image: forward, and the gradients of inputs and weights, as many each."""
    return 3 * sum(2 * outputs * inputs * kernel**2 * places for outputs, inputs, kernel, places in LAYERS)


def on_paper(steps: dict[int, float], local: float, count: int) -> None:
    """Print the model's results: the seconds of a sum over each link, and the batch size from which such ranks are faster."""
    slope, fixed = np.polyfit(list(steps), list(steps.values()), 1)
    size = 4 * count
    print(
        f"\n{count} parameters, {size} bytes of gradients; a step of this machine takes {1e3 * fixed:.1f} ms + ", end=""
    )
    print(f"{1e3 * slope:.2f} ms an image (a line through batches of {', '.join(map(str, steps))})")
    print(
        f"{operations() / 1e6:.0f} million operations an image: {operations() / slope / 1e9:.0f} GFLOP/s here", end=""
    )
    print(f", {1e6 * operations() / GPU:.1f} us on a GPU of {GPU / 1e12:.0f} TFLOP/s, which the row of NVLink is for")
    print(f"a sum of two ranks here moves {size / local / 1e9:.2f} GB/s each way\n")
    print("| link | " + " | ".join(f"{ranks} ranks: ms a sum, pays from batch" for ranks in SIZES) + " |")
    print("|---|" + "---|" * len(SIZES))
    for name, (bandwidth, latency) in LINKS.items():
        cells = []
        for ranks in SIZES:
            seconds = 2 * (ranks - 1) / ranks * size / bandwidth + 2 * (ranks - 1) * latency
            image = operations() / GPU if name.startswith("NVLink") else slope
            saved = image * (1 - 1 / ranks)  # for each image of the whole batch
            cells.append(f"{1e3 * seconds:.2f}, {max(ranks, math.ceil(seconds / saved))}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
