"""Training step / floor: its matrix products by the fastest library for each, and the memory traffic of the update.

The update reads weights, gradient and momentum and writes weights and momentum: five passes over the parameters, three for
plain gradient descent. All take turns: three libraries, a copy of the parameters on all threads, and each backend's step.

The same for the prediction of the grid image, multiseg's and the plain loop's; its floor is the products alone.
"""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from pairing import Contender, Times, by_turns, medians

from multiseg.worker.client import MEMORY
from parts.figures import Figure, in_ms, ratio
from parts.setup import Bench, closing

LIBRARIES = ("numpy", "torch", "oneDNN")
PRODUCTS = [f"{layer} {of}" for layer in ("conv1", "conv2", "deconv") for of in ("output", "weights", "inputs")]
PRODUCTS.remove("conv1 inputs")
MOST = {("caffe", 4): 2.0, ("torch", 4): 1.3, ("tensorflow", 4): 1.5}


def figures(bench: Bench) -> Iterator[Figure]:
    for size in bench.batches:
        yield from _steps(bench, size)
    yield from _predictions(bench)


def _steps(bench: Bench, size: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        images = bench.dataset(400).train.read(range(size))
        rivals = {}
        for name in bench.backends:
            given = bench.images_file(name, *images)
            rivals[name] = closing(stack, bench.ours(name, "train", size, **given))
        times = _by_turns(bench, rivals, size, [*PRODUCTS, "copy"])
    products = _sum(times, PRODUCTS)
    for name in bench.backends:
        passes = 5 if bench.settings(name).solver.get("momentum") else 3
        memory = [passes / 2 * copy for copy in times["copy"]]  # a copy reads and writes
        floor = [sum(both) for both in zip(products, memory, strict=True)]
        target = MOST.get((name, size))
        row = ratio(f"{name} batch {size}: step / floor", {**times, "floor": floor}, name, "floor", "lower", target)
        parts = in_ms(medians({"products": products, f"{passes} passes": memory}))
        row = replace(row, medians={**row.medians, **parts})
        # no step is quicker than its floor: one that seems so was measured while others were at work, and says nothing
        yield row if row.value >= 1 else replace(row, target=None)


def _predictions(bench: Bench) -> Iterator[Figure]:
    outputs = [product for product in PRODUCTS if product.endswith("output")]
    grid = bench.grid()
    with ExitStack() as stack:
        rivals = {}
        for name in bench.backends:
            for who, contender in bench.pair(stack, name, "test", 1, **bench.images_file(name, grid, grid)).items():
                rivals[f"{name} {who}"] = contender
        times = _by_turns(bench, rivals, grid.size // 32**2, outputs)
    times["floor"] = _sum(times, outputs)
    for rival in rivals:
        yield ratio(f"{rival}, the grid image: prediction / floor", times, rival, "floor", "lower")


def _sum(times: Times, products: list[str]) -> list[float]:
    return [sum(each) for each in zip(*(times[product] for product in products), strict=True)]


def _by_turns(bench: Bench, rivals: dict[str, Contender], images: int, parts: list[str]) -> Times:
    """Times of the rivals, and those of each part of a floor by the library and order that is quickest at it, by median."""
    threads = bench.settings(bench.backends[0]).threads
    turns = {name: partial(rival.turn, bench.seconds) for name, rival in rivals.items()}
    ways: dict[str, list[str]] = {part: [] for part in parts}
    with ExitStack() as stack:
        for library in LIBRARIES:
            made = Contender("products", MEMORY, library=library, batch_size=images, threads=threads)
            products = closing(stack, made)
            for part in parts:
                for unit in ("copy",) if part == "copy" else (f"{part} rows", f"{part} columns"):
                    ways[part].append(f"{library} {unit}")
                    turns[f"{library} {unit}"] = partial(products.turn, bench.seconds / 4, unit)
        times = by_turns(turns, bench.rounds)
    quickest = {part: min((times[way] for way in some), key=statistics.median) for part, some in ways.items()}
    return {name: times[name] for name in rivals} | quickest
