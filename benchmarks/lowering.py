"""Layers as a framework computes them / as lowering does, for the limits in multiseg_torch and multiseg_tensorflow.lowering.

    python benchmarks/lowering.py torch          # large upsampling, in both orders in memory
    python benchmarks/lowering.py tensorflow     # large upsampling, and the cross entropy of classes
    python benchmarks/lowering.py entropy        # the cross entropy of classes in PyTorch, of scores in NHWC; half a minute
    python benchmarks/lowering.py products       # few rows by a matrix in PyTorch: a' times b / b' times a; half a minute
    python benchmarks/lowering.py gradients      # gradients of weights over few patches in PyTorch: MKL's product / oneDNN's
    python benchmarks/lowering.py points         # 1x1 convolutions in PyTorch, in NHWC; half a minute
    python benchmarks/lowering.py dense          # dense layers in TensorFlow, on two threads by wall time: on a quiet machine

Processor time of one thread, by turns, with the memory settings of multiseg's workers; medians. Layers beyond the limits of the
rules are lowered here as well, to show where the limits are.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from restarting import restart_with

from multiseg import backend as registry
from multiseg.worker.client import environment

CHANNELS = (2, 5, 11, 21, 40, 64)
STRIDES = (2, 4, 8, 16, 32)
IMAGES = ((1, 256), (8, 128))  # number and height of square outputs
CLASSES = (2, 4, 8, 11, 15, 16, 21, 32, 64, 150)
LABELS = ((32768, 2), (32768, 5), (32768, 11), (32768, 21), (16384, 64), (4096, 150))  # number and classes
DENSE = ((128, 128), (256, 256), (512, 512), (800, 500), (1024, 1024), (8192, 1024), (4096, 4096))  # inputs and outputs
ROWS = (1, 4, 16, 64, 256)
FACTORS = ((64, 192), (256, 1024), (512, 4608), (2048, 2048), (1024, 8192))  # outputs and inputs
FEW_ROWS = (4, 8, 16, 32, 64, 96, 128, 240)
POINTS = ((8, 21), (64, 5), (64, 64), (256, 64), (512, 512))  # channels of 1x1 convolutions
BATCHES = ((8, 2), (8, 8), (8, 16), (4, 32), (8, 64))  # number and height of their images
THREADS = 2  # of dense layers
ROUNDS, SECONDS = 5, 0.06


def ratios(
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]], clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Return the time of the first of each pair of functions as a multiple of the second's."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in pairs}
    for name, pair in pairs.items():
        count = max(1, int(SECONDS / max(_seconds(each, clock) for each in pair)))
        for _ in range(ROUNDS):
            times[name].append(tuple(_seconds(each, clock, count) for each in pair))  # type: ignore[arg-type]
    middle = {name: [statistics.median(one) for one in zip(*values, strict=True)] for name, values in times.items()}
    return {name: plain / lowered for name, (plain, lowered) in middle.items()}


def _seconds(function: Callable[[], Any], clock: Callable[[], float], count: int = 2) -> float:
    begin = clock()
    for _ in range(count):
        function()
    return (clock() - begin) / count


def of_torch() -> None:
    import torch
    from multiseg_torch.lowering import lower, windows
    from torch import nn

    torch.set_num_threads(1)
    windows.SMALLEST_STRIDE, windows.MOST_CHANNELS = 2, max(CHANNELS)
    print("channels stride images order: forward, forward and backward")
    orders = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
    for channels, stride, (count, height), (order, memory) in product(CHANNELS, STRIDES, IMAGES, orders.items()):
        plain = nn.ConvTranspose2d(channels, channels, 2 * stride, stride, padding=stride // 2, bias=False)
        plain.to(memory_format=memory)
        lowered = nn.Sequential(copy.deepcopy(plain))
        assert lower(lowered)
        x = torch.randn(count, channels, height // stride, height // stride)
        x = x.contiguous(memory_format=memory).requires_grad_()
        found = _of_layer(plain, lowered, x)
        print(
            f"{channels:3} {stride:3} {count}x{height} {order}: {found['forward']:.2f} {found['both']:.2f}", flush=True
        )


def of_points() -> None:
    import torch
    from multiseg_torch.lowering import lower
    from torch import nn

    torch.set_num_threads(1)
    print("inputs outputs images: forward, forward and backward")
    for (inputs, outputs), (count, height) in product(POINTS, BATCHES):
        plain = nn.Conv2d(inputs, outputs, 1).to(memory_format=torch.channels_last)
        lowered = nn.Sequential(copy.deepcopy(plain))
        lower(lowered)
        x = torch.randn(count, inputs, height, height).contiguous(memory_format=torch.channels_last).requires_grad_()
        found = _of_layer(plain, lowered, x)
        print(f"{inputs} {outputs} {count}x{height}: {found['forward']:.2f} {found['both']:.2f}", flush=True)


def _of_layer(plain: Any, lowered: Any, x: Any) -> dict[str, float]:
    """Return the ratios of a module of PyTorch to the lowered one, for images ``x``."""
    import torch

    slope = torch.randn_like(plain(x))

    def forward(module: Any) -> None:
        with torch.no_grad():
            module(x)

    def both(module: Any) -> None:
        torch.autograd.grad(module(x), [x, *module.parameters()], slope)

    return ratios({each.__name__: (partial(each, plain), partial(each, lowered)) for each in (forward, both)})


def of_entropy() -> None:
    import torch
    from multiseg_torch import class_losses

    torch.set_num_threads(1)
    class_losses.FEWEST_ROWS = 1
    print("classes: copied to NCHW / as rows, loss, loss and gradient")
    for classes in CLASSES:
        scores = torch.randn(8, classes, 64, 64).contiguous(memory_format=torch.channels_last).requires_grad_()
        indices = torch.randint(0, classes, (8, 64 * 64))

        def forward(copied: bool, scores: Any = scores, indices: Any = indices) -> Any:
            return class_losses.cross_entropy((scores.contiguous() if copied else scores).flatten(2), indices)

        def both(copied: bool, scores: Any = scores, forward: Any = forward) -> None:
            torch.autograd.grad(forward(copied), scores)

        found = ratios({each.__name__: (partial(each, True), partial(each, False)) for each in (forward, both)})
        print(f"{classes}: {found['forward']:.2f} {found['both']:.2f}", flush=True)


def of_products() -> None:
    import torch
    from multiseg_torch.lowering import products

    torch.set_num_threads(1)
    print("outputs inputs rows: rows by matrix / matrix by rows, of oneDNN")
    for (outputs, inputs), count in product(FACTORS, FEW_ROWS):
        matrix, rows = torch.randn(outputs, inputs), torch.randn(count, inputs)

        def multiplied(a: Any, b: Any) -> None:
            products.ONEDNN(a, b, None, "none", [], "").t().reshape(-1)

        found = ratios({"output": (partial(multiplied, rows, matrix), partial(multiplied, matrix, rows))})
        print(f"{outputs} {inputs} {count}: {found['output']:.2f}", flush=True)


def of_gradients() -> None:
    import torch
    from multiseg_torch.lowering import products

    torch.set_num_threads(1)
    print("outputs inputs patches: MKL / oneDNN")
    for (outputs, inputs), count in product(FACTORS, FEW_ROWS):
        slope, patches = torch.randn(outputs, count), torch.randn(inputs, count)
        ways = partial(torch.mm, slope, patches.t()), partial(products.ONEDNN, slope, patches, None, "none", [], "")
        found = ratios({"gradient": ways})
        print(f"{outputs} {inputs} {count}: {found['gradient']:.2f}", flush=True)


def of_tensorflow() -> None:
    import tensorflow
    from multiseg_tensorflow.lowering import upsampling

    tf = tensorflow.compat.v1
    tf.disable_v2_behavior()
    upsampling.SMALLEST_STRIDE, upsampling.MOST_CHANNELS = 2, max(CHANNELS)
    draw = np.random.default_rng(0)

    def constant(*shape: int) -> Any:
        return tf.constant(draw.normal(size=shape).astype(np.float32))

    print("channels stride images: forward, forward and backward")
    for channels, stride, (count, height) in product(CHANNELS, STRIDES, IMAGES):
        with tf.Graph().as_default() as graph:
            grid = tf.placeholder(tf.float32, [count, height // stride, height // stride, channels], "grid")
            kernel = tf.placeholder(tf.float32, [2 * stride, 2 * stride, channels, channels], "kernel")
            shape = [count, height, height, channels]
            tf.nn.conv2d_transpose(grid, kernel, shape, [1, stride, stride, 1], "SAME", name="output")
        found = _compared(graph, ["grid", "kernel"], draw)
        print(f"{channels:3} {stride:3} {count}x{height}: {found['forward']:.2f} {found['both']:.2f}", flush=True)
    print("labels classes: loss, loss and gradient")
    for count, classes in LABELS:
        with tf.Graph().as_default() as graph:
            scores = tf.placeholder(tf.float32, [count, classes], "scores")
            labels = tf.constant(draw.integers(0, classes, count), tf.int32)
            tf.nn.sparse_softmax_cross_entropy_with_logits(logits=scores, labels=labels)
            name = next(op.name for op in graph.get_operations() if op.type.startswith("SparseSoftmax"))
            tf.identity(graph.get_tensor_by_name(f"{name}:0"), "output")
        found = _compared(graph, ["scores"], draw)
        print(f"{count} {classes}: {found['forward']:.2f} {found['both']:.2f}", flush=True)


def of_dense() -> None:
    import tensorflow
    from multiseg_tensorflow.lowering import products

    tf = tensorflow.compat.v1
    tf.disable_v2_behavior()
    tf.enable_resource_variables()
    products.SMALLEST_KERNEL = 1
    draw = np.random.default_rng(0)
    print("inputs outputs rows: forward, forward and backward")
    for (inputs, outputs), count in product(DENSE, ROWS):
        with tf.Graph().as_default() as graph:
            rows = tf.placeholder(tf.float32, [count, inputs], "rows")
            variable = tf.get_variable("variable", [inputs, outputs])
            tf.matmul(rows, tf.identity(variable, name="kernel"), name="output")
            tf.group(tf.global_variables_initializer(), name="start")
        found = _compared(graph, ["rows"], draw, THREADS, held=("kernel",))
        print(f"{inputs} {outputs} {count}: {found['forward']:.2f} {found['both']:.2f}", flush=True)


def _compared(
    graph: Any, inputs: list[str], draw: Any, threads: int = 1, held: tuple[str, ...] = ()
) -> dict[str, float]:
    """Return the ratios of a graph, from its inputs to its tensor "output", to the lowered one.

    Gradients are those of the inputs and of the variables ``held``, which the operation "start" initialises.
    """
    import tensorflow
    from multiseg_tensorflow.lowering import lower

    tf = tensorflow.compat.v1
    pairs: dict[str, list[Callable[[], Any]]] = {"forward": [], "both": []}
    values: list[Any] = []
    lowered, _ = lower(graph, "cpu")
    assert lowered is not graph
    for each in (graph, lowered):
        with each.as_default():
            tensors = [each.get_tensor_by_name(f"{name}:0") for name in inputs]
            variables = [each.get_tensor_by_name(f"{name}:0") for name in held]
            output = each.get_tensor_by_name("output:0")
            slope = tf.placeholder(tf.float32, output.shape)
            slopes = tf.gradients(output, tensors + variables, slope)
            config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1)
            session = tf.Session(config=config)
            if held:
                session.run("start")
            # one number of each result: its computation counts, copying it does not
            ends = [tf.reshape(tensor, [-1])[0] for tensor in (output, *slopes)]
            values = values or [
                draw.normal(size=tensor.shape.as_list()).astype(np.float32) for tensor in (*tensors, slope)
            ]
            pairs["forward"].append(partial(session.make_callable(ends[:1], tensors), *values[:-1]))
            pairs["both"].append(partial(session.make_callable(ends, [*tensors, slope]), *values))
    clock = time.process_time if threads == 1 else time.perf_counter
    return ratios({name: (plain, other) for name, (plain, other) in pairs.items()}, clock)


PARTS = {
    "torch": of_torch,
    "tensorflow": of_tensorflow,
    "entropy": of_entropy,
    "products": of_products,
    "gradients": of_gradients,
    "points": of_points,
    "dense": of_dense,
}
# of the parts that are not named after theirs
FRAMEWORKS = {"entropy": "torch", "products": "torch", "gradients": "torch", "points": "torch", "dense": "tensorflow"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS), metavar="|".join(PARTS))
    part = parser.parse_args().part
    restart_with(environment(registry.get(FRAMEWORKS.get(part, part)), THREADS if part == "dense" else 1))
    PARTS[part]()


if __name__ == "__main__":
    main()
