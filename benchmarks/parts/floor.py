"""A training step over its floor: its matrix products by whichever library is quickest at each, and the update's memory traffic.

The update reads weights, gradient and momentum and writes weights and momentum: five passes over the parameters, three for
plain gradient descent. All take turns: three libraries, a copy of the parameters on all threads, and each backend's step.
"""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from pairing import Contender, Times, by_turns, medians

from parts.figures import Figure, in_ms, ratio
from parts.setup import KEEP_MEMORY, Bench, closing

LIBRARIES = ("numpy", "torch", "oneDNN")
PRODUCTS = [f"{layer} {of}" for layer in ("conv1", "conv2", "deconv") for of in ("output", "weights", "inputs")]
PRODUCTS.remove("conv1 inputs")
PASSES = {"momentum": 5, "none": 3}
MOST = 1.5


def figures(bench: Bench) -> Iterator[Figure]:
    for size in (4, 32):
        times = _measure(bench, size)
        quickest = {part: _quickest(times, part) for part in [*PRODUCTS, "copy"]}
        products = [sum(round_) for round_ in zip(*(quickest[product] for product in PRODUCTS), strict=True)]
        rows = []
        for name in bench.backends:
            passes = PASSES["momentum" if bench.settings(name).solver.get("momentum") else "none"]
            memory = [passes / 2 * copy for copy in quickest["copy"]]  # a copy reads and writes
            floor = [sum(both) for both in zip(products, memory, strict=True)]
            row = ratio(
                f"{name} batch {size}: step / floor", {name: times[name], "floor": floor}, name, "floor", "lower"
            )
            parts = in_ms(medians({"products": products, f"{passes} passes": memory}))
            rows.append(replace(row, medians={**row.medians, **parts}))
        yield from rows
        best = min(rows, key=lambda row: row.value)
        yield replace(best, name=f"best backend batch {size}: step / floor", target=MOST)


def _quickest(times: Times, part: str) -> list[float]:
    """The times of the library and order that are quickest at a product or the copy, by median."""
    found = [values for name, values in times.items() if part in name]
    return min(found, key=statistics.median)


def _measure(bench: Bench, size: int) -> Times:
    """Steps by backend, and what floors are made of, in each round."""
    threads = bench.settings(bench.backends[0]).threads
    turns = {}
    with ExitStack() as stack:
        for library in LIBRARIES:
            made = Contender("products", KEEP_MEMORY, library=library, batch_size=size, threads=threads)
            products = closing(stack, made)
            for unit in ["copy", *(f"{product} {order}" for product in PRODUCTS for order in ("rows", "columns"))]:
                turns[f"{library} {unit}"] = partial(products.turn, bench.seconds / 4, unit)
        for name in bench.backends:
            given = bench.images_file(name, *bench.dataset(400).train.read(range(size)))
            step = closing(stack, bench.ours(name, "train", size, **given))
            turns[name] = partial(step.turn, bench.seconds)
        return by_turns(turns, bench.rounds)
