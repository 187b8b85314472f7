"""Choose the order in memory of a network's images and weights: NCHW, or NHWC (channels_last), which oneDNN computes faster.

The shapes stay (N, C, H, W); only strides differ. Prediction and training use the same order, so that they round alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from multiseg_torch import lowering
from multiseg_torch.buffers import unchanged

# U-Net and FCN-8s take less time in NHWC (benchmarks/performance.py --only networks). Lowered patches are the exception: they
# are copied from NCHW.
ORDERS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
ROUNDING = (
    1e-4  # of the output's largest absolute value: far above the rounding of another order, far below a wrong one
)


def choose(model: nn.Module, images: Tensor, trains: bool) -> str:
    """Return the order, a key of ORDERS, and bring the weights of ``model`` into it.

    NHWC needs a CPU, a convolution, no lowered patches, and an output for ``images`` (N, C, H, W) that is the same to rounding,
    because files that read a tensor's memory (``view``, ``as_strided``) may depend on NCHW. If the network ``trains``, its
    gradient for ``images`` is computed as well. Parameters and buffers keep their values. Convolutions that PyTorch computes
    wrongly in NHWC (docs/upstream-faults.md) keep NCHW.
    """
    convolves = any(isinstance(module, CONVOLUTIONS) for module in model.modules())
    if images.device.type != "cpu" or not convolves or lowering.copies_patches(model):
        return "NCHW"
    with _Convolutions() as calls:
        expected = _output(model, images[:1])
    if calls.faulty:
        return "NCHW"
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if _agrees(model, images.contiguous(memory_format=torch.channels_last), expected, trains):
        return "NHWC"
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return "NCHW"


def ordered(images: Tensor, order: str) -> Tensor:
    """Return images (N, C, H, W) in an order of ORDERS; tensors with other axes as they are."""
    return images.contiguous(memory_format=ORDERS[order]) if images.dim() == 4 else images


class _Convolutions(TorchFunctionMode):
    """Notes whether a convolution of one channel has a stride of 1 down and a larger one across.

    With an output one pixel wide, oneDNN in PyTorch 2.13 reads memory beyond such an image in NHWC; sizes of images may vary. The
    gradient of a transposed convolution with one output channel is such a convolution.
    """

    faulty = False

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        made = function(*arguments, **(named or {}))
        if function in (torch.conv2d, torch.conv_transpose2d):
            values = {**dict(zip(("input", "weight", "bias", "stride"), arguments)), **(named or {})}
            stride = values.get("stride", 1)
            down, across = (stride, stride) if isinstance(stride, int) else (*stride, *stride)[:2]
            image = values["input"] if function is torch.conv2d else made
            self.faulty |= image.shape[-3] == 1 and down == 1 < across
        return made


def _output(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model.eval()(images)
    return output


def _agrees(model: nn.Module, images: Tensor, expected: Tensor, trains: bool) -> bool:
    """Return whether the output is the expected one to rounding, and, if the network trains, has a gradient."""
    try:
        made = _output(model, images[:1])
        tolerance = ROUNDING * float(expected.abs().max())
        if not torch.allclose(made, expected, rtol=0, atol=tolerance, equal_nan=True):
            return False
        if trains:
            _take_gradient(model, images)
    except Exception:  # of the user's code, which is then used with NCHW, where it works
        return False
    return True


def _take_gradient(model: nn.Module, images: Tensor) -> None:
    """Compute the network's output and gradient in training, and remove what that leaves."""
    model.train()
    try:
        with unchanged(model):
            output = model(images)
            if output.requires_grad:
                output.sum().backward()
    finally:
        model.zero_grad(set_to_none=True)
