"""How a training step computes the network's output: compiled or not, in float32 or bfloat16, from which random numbers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from multiseg.errors import MultisegError, SettingsError, setting
from multiseg.network import BF16, NetworkSpec
from multiseg_torch import lowering
from multiseg_torch.buffers import unchanged
from multiseg_torch.memory_order import ordered

CACHE = "TORCHINDUCTOR_CACHE_DIR"  # PyTorch's variable: the folder of compiled code


class Forward:
    """Computes the output of a network for a part of a batch in training, float32 (N, C, H, W).

    ``order`` is that of the network's weights and images in memory (multiseg_torch.memory_order), which the output may have, too.

    With ``compile`` parts of ``batch_size`` images are compiled. Others, at the end of an epoch, are not: each size would be
    compiled anew, and what is compiled depends on the size alone, so that a resumed training computes the same.
    """

    def __init__(self, spec: NetworkSpec, model: nn.Module, batch_size: int, device: torch.device, order: str) -> None:
        self._order = order
        self._spec, self._model, self._batch_size, self._device = spec, model, batch_size, device
        self._compiled: Callable[[Tensor], Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the output of the network for images (N, C, H, W)."""
        whole = self._compiled is not None and len(images) == self._batch_size
        function = self._compiled if whole and self._compiled is not None else self._model
        with self.precision(self._spec.precision):
            output = function(ordered(images, self._order))
        return in_float32(output)

    def precision(self, name: str) -> AbstractContextManager[None]:
        """Return the context in which the network is computed in FLOAT32 or BF16."""
        context: AbstractContextManager[None] = torch.autocast(self._device.type, torch.bfloat16, enabled=name == BF16)
        return context

    def compile(self) -> float:
        """Compile the network's output and its gradient for a batch, and return the seconds that it took.

        The model's parameters and buffers do not change. Raises SettingsError if there is no C++ compiler, or if torch.compile
        cannot compile the network.
        """
        start = time.perf_counter()
        _keep_cache()
        if self._device.type == "cpu":
            _check_compiler()
        with unchanged(self._model):
            self._compile_step()
        self._model.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    def _compile_step(self) -> None:
        """Compile, and compute the output and gradient of a batch once."""
        self._model.train()
        images = torch.zeros(self._batch_size, *self._spec.input_shape, device=self._device)
        with torch.no_grad():
            if hasattr(self._model(ordered(images, self._order)), "scores"):
                raise SettingsError(
                    f"{setting('compile', True)}: is not available for {self._spec.model}, whose loss compares the scores before "
                    f"its last layer; end the network before its softmax or sigmoid, or leave {setting('compile')} out"
                )
        for module in lowering.layers(self._model):  # their products, of oneDNN, are for eager mode only
            module.forward = torch.compiler.disable(module.forward)
        self._compiled = torch.compile(self._model, dynamic=False)
        try:
            self(images).sum().backward()
        except MultisegError:
            raise
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise SettingsError(
                f"{setting('compile', True)}: torch.compile cannot compile {self._spec.model}: {type(error).__name__}: {first}; "
                f"leave {setting('compile')} out"
            ) from error


def in_float32(output: Tensor) -> Tensor:
    """Return the output of a network with its scores if it has them (multiseg_torch.scores); bfloat16 as float32."""
    converted, scores = _widened(output), getattr(output, "scores", None)
    if scores is not None and converted is not output:
        converted.scores = _widened(scores)  # type: ignore[attr-defined]
    return converted


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def set_mode(model: nn.Module, training: bool) -> None:
    """Bring a model into the mode of training, or of evaluation.

    ``train`` and ``eval`` call each module, which takes time in networks of many modules, so they are called
    only where the mode changes.
    """
    if model.training != training:
        model.train(training)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of ``device`` as torch.manual_seed does.

    torch.manual_seed itself also formats the call stack, with a stat of each source file, for kinds of devices that are absent:
    0.3 to 1 ms of processor time at every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def _keep_cache() -> None:
    """Let torch.compile keep compiled code between runs, in the user's cache folder: the worker's is temporary."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ.setdefault(CACHE, str(Path(base, "multiseg", "torch-compile")))


def _check_compiler() -> None:
    """Raise SettingsError if there is no C++ compiler for torch.compile."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        raise SettingsError(
            f"{setting('compile', True)}: torch.compile needs a C++ compiler, and there is none; install g++ or clang++, name "
            f"one in the environment variable CXX, or leave {setting('compile')} out"
        ) from None
