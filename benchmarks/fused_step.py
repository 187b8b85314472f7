"""Measure whether updating a lowered layer's weights block by block, in the cache, makes its training step faster.

python benchmarks/fused_step.py                       # batch sizes 4, 16 and 32, one thread; about three minutes
python benchmarks/fused_step.py --threads 2 --batch 4

The layer is conv2 of the tutorial's FCN on 32x32 pixels: weights (1024, 8192), 33.5 MB, 4 patches per image; PyTorch on the
CPU, SGD with momentum, dampening and weight decay. The present step computes the output, the gradients of inputs and weights by
multiseg's product, and updates by PyTorch's fused SGD. The others compute the same except for rounding, with the weights'
gradient and the update in blocks of rows:

- oneDNN, MKL: the block's gradient by that library, then fused SGD on the block
- addmm: the gradient is added to the block of the momentum by the product itself, then weight decay and update
- shared: as MKL, and the block's part of the inputs' gradient is computed in the same pass over the weights

Printed are medians over rounds in which all take turns: times of the present step and its products, and ratios present / other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

from restarting import restart_with

from multiseg import backend as registry
from multiseg.worker.client import environment

if __name__ == "__main__":
    restart_with(environment(registry.get("torch"), 0))

import torch
from multiseg_torch.lowering.products import ONEDNN, product
from torch import Tensor

OUTPUTS, INPUTS, PATCHES_PER_IMAGE = 1024, 8192, 4
RATE, MOMENTUM, DAMPENING, DECAY = 1e-3, 0.9, 0.9, 1e-4


class Layer:
    """Weights, momentum, patches and gradient of the output, and the ways to compute a step from them."""

    def __init__(self, images: int) -> None:
        generator = torch.Generator().manual_seed(1)
        patches = images * PATCHES_PER_IMAGE
        self.weights = torch.randn(OUTPUTS, INPUTS, generator=generator) / 100
        self.momentum = torch.zeros(OUTPUTS, INPUTS)
        self.patches = torch.rand(patches, INPUTS, generator=generator)
        self.gradient = torch.randn(patches, OUTPUTS, generator=generator) / 1000

    def present(self) -> Tensor:
        """Return the inputs' gradient, after an update as multiseg does it."""
        self.output()
        of_inputs = self.of_inputs()
        _update(self.weights, self.of_weights(), self.momentum)
        return of_inputs

    def output(self) -> Tensor:
        return product(self.patches[None], self.weights[None])[0]

    def of_inputs(self) -> Tensor:
        return product(self.gradient[None], self.weights.t()[None])[0]

    def of_weights(self) -> Tensor:
        return product(self.gradient.t()[None], self.patches.t()[None])[0]

    def blocks(self, rows: int, way: str) -> Tensor:
        """Return the same; the update goes over blocks of ``rows`` rows of the weights."""
        self.output()
        shared = way == "shared"
        of_inputs = torch.zeros(self.patches.shape) if shared else self.of_inputs()
        turned, buffer = self.gradient.t().contiguous(), torch.empty(rows, INPUTS)
        for part in zip(turned.split(rows), self.weights.split(rows), self.momentum.split(rows), strict=True):
            gradient, weights, momentum = part
            if shared:
                of_inputs.addmm_(gradient.t(), weights)
            if way == "addmm":
                momentum.addmm_(gradient, self.patches, beta=MOMENTUM, alpha=1 - DAMPENING)
                momentum.add_(weights, alpha=(1 - DAMPENING) * DECAY)
                weights.add_(momentum, alpha=-RATE)
            elif way == "oneDNN":
                _update(weights, ONEDNN(gradient, self.patches.t(), None, "none", [], ""), momentum)
            else:
                _update(weights, torch.mm(gradient, self.patches, out=buffer), momentum)
        return of_inputs


def _update(weights: Tensor, gradient: Tensor, momentum: Tensor) -> None:
    torch._fused_sgd_(
        [weights], [gradient], [momentum], weight_decay=DECAY, momentum=MOMENTUM, lr=RATE, dampening=DAMPENING, nesterov=False,
        maximize=False, is_first_step=False,
    )  # fmt: skip


OTHERS = {
    f"{way}, {rows} rows": partial(Layer.blocks, rows=rows, way=way)
    for way, sizes in {"oneDNN": (32, 64, 128), "MKL": (32, 64, 128), "addmm": (32, 64), "shared": (16, 64)}.items()
    for rows in sizes
}
STEPS: dict[str, Callable[[Layer], Tensor]] = {"present": Layer.present, **OTHERS}
PARTS: dict[str, Callable[[Layer], Tensor]] = {
    "output": Layer.output,
    "inputs' gradient": Layer.of_inputs,
    "weights' gradient": Layer.of_weights,
    "reading the weights once": lambda layer: layer.weights.sum(),
}


def check(images: int) -> None:
    """Raise AssertionError unless all compute the same as the present step, except for rounding."""
    found = {}
    for name, step in STEPS.items():
        layer = Layer(images)
        found[name] = (step(layer), step(layer), layer.weights, layer.momentum)
    for name, tensors in found.items():
        for tensor, expected in zip(tensors, found["present"], strict=True):
            assert (tensor - expected).abs().max() <= 1e-5 * expected.abs().max(), name


def measure(images: int, rounds: int) -> None:
    """Print processor and wall time of the present step and its parts, and its ratios to the others, for one batch size."""
    layer = Layer(images)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in STEPS | PARTS}
    for number in range(rounds + 1):
        for name, part in (STEPS | PARTS).items():
            start = time.process_time(), time.perf_counter()
            part(layer)
            if number:  # the first round warms up
                seconds[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    print(f"batch {images}: processor and wall time in ms")
    for name in ("present", *PARTS):
        processor, wall = (statistics.median(each) * 1e3 for each in zip(*seconds[name], strict=True))
        print(f"  {name:24} {processor:6.1f} {wall:6.1f}")
    print("present / other, by processor and wall time")
    for name in OTHERS:
        pairs = list(zip(seconds["present"], seconds[name], strict=True))
        by_processor, by_wall = (statistics.median(ours[k] / other[k] for ours, other in pairs) for k in (0, 1))
        print(f"  {name:24} {by_processor:6.2f} {by_wall:6.2f}", flush=True)


def main() -> None:
    """Check that all compute the same, then measure each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--batch", type=int, action="append", metavar="IMAGES")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    check(4)
    print(f"torch {torch.__version__}, threads {options.threads}, load {os.getloadavg()[0]:.1f}")
    for images in options.batch or (4, 16, 32):
        measure(images, options.rounds)


if __name__ == "__main__":
    main()
