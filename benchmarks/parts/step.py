"""A training step compared with that of the plain loop, on a batch in memory."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from pairing import by_turns

from parts.figures import Figure, ratio
from parts.setup import Bench, closing

TARGETS = {"torch": {4: 4.0, 32: 4.5}, "tensorflow": {4: 3.0, 32: 4.5}, "caffe": {4: 2.0, 32: 4.0}}


def figures(bench: Bench) -> Iterator[Figure]:
    for name in bench.backends:
        for size in bench.batches:
            given = bench.images_file(name, *bench.dataset(400).train.read(range(size)))
            with ExitStack() as stack:
                rivals = bench.pair(stack, name, "train", size, **given)
                if name == "tensorflow":
                    off = bench.plain(name, "train", size, {"TF_ENABLE_ONEDNN_OPTS": "0"}, **given)
                    rivals["oneDNN off"] = closing(stack, off)
                times = by_turns({key: partial(each.turn, bench.seconds) for key, each in rivals.items()}, bench.rounds)
            target = TARGETS.get(name, {}).get(size)
            yield ratio(f"{name} batch {size}: plain / multiseg", times, "plain", "multiseg", "higher", target)
            if "oneDNN off" in times:  # a note, as TensorFlow has it on this processor unless told otherwise
                yield ratio(
                    f"{name} batch {size}: plain, oneDNN off / multiseg", times, "oneDNN off", "multiseg", "higher"
                )
