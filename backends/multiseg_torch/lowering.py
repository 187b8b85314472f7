"""Convolutions whose kernel equals their stride as one matrix product over the patches of the whole batch.

Windows do not overlap, so cutting the image into patches is a reshape and a transpose, and the layer is one matrix
product. The modules keep their parameters, names and shapes: only ``forward`` differs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Below this many elements of a kernel's window a convolution library is as fast as the product over copied patches.
SMALLEST_WINDOW = 16


# oneDNN's product, inside PyTorch: on processors that are not Intel's, MKL's, which torch.mm calls, needs up to twice the time
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a`` (M, K) times the transpose of ``b`` (N, K): (M, N). Either may be a transposed view."""
    if ONEDNN is not None and a.device.type == "cpu" and a.dtype == b.dtype == torch.float32:
        return ONEDNN(a, b, None, "none", [], "")
    return torch.mm(a, b.t())


class Product(torch.autograd.Function):
    """:func:`product` with its gradients, which are such products too."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return product(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        needs_a, needs_b = ctx.needs_input_grad
        return (
            product(gradient, b.t()) if needs_a else None,
            product(gradient.t(), a.t()) if needs_b else None,
        )


class PatchConv2d(nn.Conv2d):
    """Conv2d with kernel == stride, no padding: (N, C, H, W) to patches (N*h*w, C*k*k), times the weights, and back."""

    def forward(self, x: Tensor) -> Tensor:
        (kh, kw), (n, c, height, width) = self.kernel_size, x.shape
        h, w = height // kh, width // kw
        x = x[:, :, : h * kh, : w * kw]  # a rest beyond the last whole window is not seen
        patches = x.reshape(n, c, h, kh, w, kw).permute(0, 2, 4, 1, 3, 5).reshape(n * h * w, c * kh * kw)
        out = Product.apply(patches, self.weight.reshape(self.out_channels, -1))
        out = out if self.bias is None else out + self.bias
        return out.reshape(n, h, w, self.out_channels).permute(0, 3, 1, 2)


class PatchConvTranspose2d(nn.ConvTranspose2d):
    """ConvTranspose2d with kernel == stride, no padding: each pixel's patch of output is its own product."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        (kh, kw), (n, c, h, w) = self.kernel_size, x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(n * h * w, c)
        out = Product.apply(pixels, self.weight.reshape(c, -1).t())
        out = out.reshape(n, h, w, self.out_channels, kh, kw).permute(0, 3, 1, 4, 2, 5)
        out = out.reshape(n, self.out_channels, h * kh, w * kw)
        return out if self.bias is None else out + self.bias[:, None, None]


def lower(model: nn.Module) -> list[str]:
    """Lower every layer of ``model`` that may be and gains by it, in place; the names of those layers."""
    names = []
    for name, module in model.named_modules():
        if type(module) is nn.Conv2d and _separate(module) and module.padding_mode == "zeros":
            module.__class__ = PatchConv2d
        elif type(module) is nn.ConvTranspose2d and _separate(module) and module.output_padding == (0, 0):
            module.__class__ = PatchConvTranspose2d
        else:
            continue
        names.append(name)
    return names


def _separate(module: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether windows neither overlap nor leave gaps, and are large enough to gain."""
    kh, kw = module.kernel_size
    return (
        module.kernel_size == module.stride
        and module.padding in ((0, 0), "valid")
        and module.dilation == (1, 1)
        and module.groups == 1
        and kh * kw >= SMALLEST_WINDOW
    )
