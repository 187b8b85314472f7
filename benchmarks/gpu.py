"""Measure training steps on a GPU. It needs only PyTorch and this repository, and ends within 8 minutes.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --device cpu --quick --json cpu.json     # tries the script without a GPU, with tiny images

For FCN (batch 4, 16, 32), U-Net (8) and FCN-AlexNet (4): plain PyTorch in float32, TF32 and bfloat16, channels_last,
torch.compile, torch.compile max-autotune, CUDA graphs, and multiseg's own step, in float32 and bfloat16. Milliseconds of a step
are medians of rounds in which all variants take turns. Further: the same step fed from records in a file, and the errors of
loss and gradient in comparison with float64 on the CPU. The file is written after each network, so an interruption loses
nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_feeding import feeding
from gpu_parity import errors
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models" / "multiseg_models"
RATE = 1e-5
COMPILING = ("compile", "compile bf16", "max-autotune")  # variants that take long to start


@dataclass(frozen=True)
class Case:
    """A network, its batch, and the shapes (C, H, W) of its images and labels; labels of one channel may be class indices."""

    file: str
    batch: int
    image: tuple[int, int, int]
    classes: int = 0  # 0: labels are images

    @property
    def name(self) -> str:
        return f"{self.file.removesuffix('_torch.py')} batch {self.batch}"

    def model(self) -> nn.Module:
        """Return the network with weights from a fixed seed."""
        torch.manual_seed(1)
        specification = importlib.util.spec_from_file_location(self.file[:-3], MODELS / self.file)
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        params = {"inputShape": list(self.image), "nclasses": self.classes or None}
        model: nn.Module = module.network(params)["model"]
        return model

    def data(self) -> tuple[Tensor, Tensor]:
        """Return a batch and its labels on the CPU."""
        draw = torch.Generator().manual_seed(2)
        images = 100 * torch.randn(self.batch, *self.image, generator=draw)
        if self.classes:
            return images, torch.randint(0, self.classes, (self.batch, *self.image[1:]), generator=draw)
        return images, 100 * torch.randn(self.batch, *self.image, generator=draw)

    def loss(self) -> nn.Module:
        return nn.CrossEntropyLoss() if self.classes else nn.SmoothL1Loss()


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case("fcn_torch.py", 2, (1, 32, 32)), Case("unet_torch.py", 2, (3, 32, 32), 5)]
    fcn = [Case("fcn_torch.py", batch, (1, 32, 32)) for batch in (4, 16, 32)]
    return [*fcn, Case("unet_torch.py", 8, (3, 256, 256), 21), Case("fcn_alexnet_torch.py", 4, (3, 256, 256), 21)]


class Variants:
    """The training steps of one case: functions without arguments, ready to be timed, by name."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device = case, device
        self.makers: dict[str, Callable[[], Callable[[], Any]]] = {
            "plain": self.plain,
            "TF32": partial(self.plain, tf32=True),
            "bf16": partial(self.plain, bf16=True),
            "channels_last": partial(self.plain, last=True),
            "channels_last TF32": partial(self.plain, last=True, tf32=True),
            "channels_last bf16": partial(self.plain, last=True, bf16=True),
            "multiseg": self.multiseg,
            "multiseg bf16": partial(self.multiseg, precision="bf16"),
            "compile": partial(self.plain, mode="default"),
            "compile bf16": partial(self.plain, mode="default", bf16=True),
            "max-autotune": partial(self.plain, mode="max-autotune"),
        }
        if device.type == "cuda":
            self.makers["CUDA graph"] = self.graph
            self.makers["CUDA graph TF32"] = partial(self.graph, tf32=True)

    def plain(self, tf32: bool = False, bf16: bool = False, last: bool = False, mode: str = "") -> Callable[[], Any]:
        """Return the step of PyTorch's tutorial; the loss is read after each step, as loops do that print it."""
        forward, optimizer, images, labels, loss_of = self._parts(last)
        if mode:
            forward = torch.compile(forward, mode=mode)

        def step() -> float:
            _use_tf32(tf32)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                loss = loss_of(forward(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return float(loss.item())

        return step

    def graph(self, tf32: bool = False) -> Callable[[], Any]:
        """Return the step recorded once as a CUDA graph and replayed."""
        forward, optimizer, images, labels, loss_of = self._parts(False)
        _use_tf32(tf32)

        def run() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            loss: Tensor = loss_of(forward(images), labels)
            loss.backward()
            optimizer.step()
            return loss

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            loss = run()

        def step() -> float:
            recorded.replay()
            return float(loss.item())

        return step

    def multiseg(self, precision: str = "float32") -> Callable[[], Any]:
        """Return the step of multiseg's backend: arrays in the program's memory, copies to the device included."""
        sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "models")]
        from multiseg_torch.network import Network

        from multiseg.network import NetworkSpec

        case, classes = self.case, bool(self.case.classes)
        images, labels = self.case.data()
        network = Network(NetworkSpec(
            model=str(MODELS / case.file), input_shape=case.image, label_shape=(1, *case.image[1:]) if classes else case.image,
            solver={"name": "sgd", "momentum": 0.9, "dampening": 0.9, "weight_decay": 1e-4},
            loss="cross_entropy" if classes else "smooth_l1", batch_size=case.batch, val_batch_size=case.batch, seed=1,
            threads=torch.get_num_threads(), device=self.device.type, lowering=True, labels="classes" if classes else "images",
            precision=precision,
        ))  # fmt: skip
        features, targets = images.numpy(), (labels[:, None].float() if classes else labels).numpy()

        def step() -> float:
            _use_tf32(False)
            return network.train_step(features, targets, RATE)

        return step

    def _parts(self, last: bool) -> tuple[Any, torch.optim.Optimizer, Tensor, Tensor, nn.Module]:
        order = torch.channels_last if last else torch.contiguous_format
        model = self.case.model().to(self.device, memory_format=order).train()
        images, labels = self.case.data()
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, dampening=0.9, weight_decay=1e-4)
        return (
            model,
            optimizer,
            images.to(self.device).contiguous(memory_format=order),
            labels.to(self.device),
            self.case.loss(),
        )


def _use_tf32(on: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def turn(step: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Return the milliseconds of a step, of as many in a row as fit into ``seconds``."""
    count, start = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - start < seconds:
        step()
        count += 1
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count * 1e3


def measured(case: Case, device: torch.device, seconds: float, rounds: int, until: float) -> dict[str, Any]:
    """Return milliseconds and start-up seconds by variant; variants for which no time is left are listed as ``left_out``."""
    steps: dict[str, Callable[[], Any]] = {}
    start_seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    left_out = []
    for name, make in Variants(case, device).makers.items():
        if name in COMPILING and time.monotonic() > until:
            left_out.append(name)
            continue
        start = time.perf_counter()
        try:
            step = make()
            for _ in range(3):
                step()
            steps[name] = step
        except Exception as error:  # one variant that a device or version lacks must not end the others
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        start_seconds[name] = round(time.perf_counter() - start, 2)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(turn(step, device, seconds))
    milliseconds = {name: round(statistics.median(values), 4) for name, values in times.items()}
    return {"milliseconds": milliseconds, "start_seconds": start_seconds, "failed": failed, "left_out": left_out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="two networks, tiny batches, short turns")
    parser.add_argument(
        "--minutes", type=float, default=8, help="compiled variants that would start after these are left out"
    )
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), metavar="FILE")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here; --device cpu --quick tries the script without one")
    device = torch.device(options.device)
    begin, limit = time.monotonic(), options.minutes * 60 * 0.75  # the rest is for measuring what has started
    chosen = cases(options.quick)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__, "cuda": torch.version.cuda, "quick": options.quick, "cases": {},
    }  # fmt: skip
    for index, case in enumerate(chosen):
        share = begin + limit * (index + 1) / len(chosen)
        values = measured(case, device, 0.02 if options.quick else 0.2, 2 if options.quick else 5, share)
        values["errors"] = errors(case.model, case.data, case.loss(), device)
        values["feeding"] = feeding(
            case.model().to(device), case.data(), case.loss().to(device), 8 if options.quick else 60
        )
        result["cases"][case.name] = values
        result["seconds"] = round(time.monotonic() - begin, 1)
        options.json.write_text(json.dumps(result, indent=1))
        print(case.name, json.dumps(values["milliseconds"]), flush=True)


if __name__ == "__main__":
    main()
