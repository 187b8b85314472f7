"""Time training steps whose batches are read from a file of records, bytes of pixels one after the other, as in a database."""

from __future__ import annotations

import mmap
import tempfile
import threading
import time
from collections.abc import Iterator
from queue import Queue

import torch
from torch import Tensor, nn

AHEAD = 3  # batches that are read ahead


def feeding(model: nn.Module, batch: tuple[Tensor, Tensor], loss_of: nn.Module, steps: int) -> dict[str, float]:
    """Return the milliseconds of a step: on a batch that is on the device, and on ``steps`` batches that are read from records.

    ``read, then copied`` reads, copies and computes in turn; ``pinned, overlapping`` reads in a thread into pinned memory,
    copies on a stream of its own, and reads the loss once at the end.
    """
    device = next(model.parameters()).device
    images, labels = batch
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    targets = labels.to(device)
    model.train()

    def step(inputs: Tensor) -> Tensor:
        loss: Tensor = loss_of(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    def timed(batches: Iterator[Tensor], reads_each: bool) -> float:
        step(images.to(device))
        _wait(device)
        start, loss = time.perf_counter(), torch.zeros(())
        for inputs in batches:
            loss = step(inputs)
            if reads_each:
                loss.item()
        loss.item()
        return round((time.perf_counter() - start) / steps * 1e3, 4)

    with tempfile.TemporaryFile() as file:
        pixels = images.clamp(0, 255).to(torch.uint8).numpy().tobytes()
        for _ in range(steps):
            file.write(pixels)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as records:
            resident = images.to(device)
            return {
                "on the device": timed((resident for _ in range(steps)), True),
                "read, then copied": timed((one.to(device) for one in _read(records, images, steps)), True),
                "pinned, overlapping": timed(_overlapping(records, images, steps, device), False),
            }


def _read(records: mmap.mmap, like: Tensor, steps: int) -> Iterator[Tensor]:
    """Yield each batch of the records, float32 in the shape of ``like``."""
    size = like.numel()
    for number in range(steps):
        content = bytearray(records[number * size : (number + 1) * size])
        yield torch.frombuffer(content, dtype=torch.uint8).reshape(like.shape).float()


def _overlapping(records: mmap.mmap, like: Tensor, steps: int, device: torch.device) -> Iterator[Tensor]:
    """Yield the same batches on the device, read and copied while earlier ones are computed."""
    ready: Queue[Tensor | None] = Queue(AHEAD)
    on_gpu = device.type == "cuda"

    def read() -> None:
        for batch in _read(records, like, steps):
            ready.put(batch.pin_memory() if on_gpu else batch)
        ready.put(None)

    threading.Thread(target=read, daemon=True).start()
    copies = torch.cuda.Stream() if on_gpu else None
    while (batch := ready.get()) is not None:
        if copies is None:
            yield batch
            continue
        with torch.cuda.stream(copies):
            inputs = batch.to(device, non_blocking=True)
        torch.cuda.current_stream().wait_stream(copies)
        inputs.record_stream(torch.cuda.current_stream())
        yield inputs


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
