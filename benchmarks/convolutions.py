"""The convolutions of a network alone / its training step in PyTorch: what a faster step could gain beside them.

    python benchmarks/convolutions.py                # the U-Net
    python benchmarks/convolutions.py MODEL.py       # another network of 3-channel images of 64x64 pixels

Processor time of one thread, batch size 8, NHWC, by turns, with the memory settings of multiseg's workers; medians. Each
convolution computes its output and all its gradients, with the tensors of the step: of oneDNN as PyTorch calls it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pairing import by_turns, medians
from restarting import restart_with

from multiseg import backend as registry
from multiseg.worker.client import environment

UNET = Path(__file__).parent.parent / "models" / "multiseg_models" / "unet_torch.py"
SHAPE = (8, 3, 64, 64)
ROUNDS = 15


def main() -> None:
    restart_with(environment(registry.get("torch"), 1))
    import torch
    from multiseg_torch import files
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    order = torch.channels_last
    model = files.load(sys.argv[1] if len(sys.argv) > 1 else str(UNET), SHAPE[1:]).model.to(memory_format=order).train()
    images = torch.randn(SHAPE).contiguous(memory_format=order)
    parts: dict[str, Callable[[], Any]] = {}

    def note(module: nn.Module, given: Any, output: Any) -> None:
        needs_gradient = given[0] is not images
        x, slope = given[0].detach().requires_grad_(needs_gradient), torch.randn_like(output)
        wanted = [x, *module.parameters()] if needs_gradient else [*module.parameters()]
        parts[f"{len(parts)} {tuple(given[0].shape[1:])} {module}"] = lambda: torch.autograd.grad(
            module(x), wanted, slope
        )

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, kinds)]
    output = model(images)
    for hook in hooks:
        hook.remove()
    classes, optimizer = output.shape[1], torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9, fused=True)
    labels = torch.randint(0, classes, (SHAPE[0], *output.shape[2:]))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    took = medians(by_turns({name: partial(seconds, each) for name, each in {"step": step, **parts}.items()}, ROUNDS))
    for name in parts:
        print(f"{took[name] * 1e3:6.2f} ms {name}")
    alone = sum(took[name] for name in parts)
    print(f"{alone * 1e3:.1f} of {took['step'] * 1e3:.1f} ms: {alone / took['step']:.2f} of the step")


def seconds(function: Callable[[], Any]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
