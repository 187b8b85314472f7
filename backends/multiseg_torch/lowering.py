"""Lower convolutions whose kernel size equals their stride to one matrix product over the patches of the whole batch.

The windows do not overlap, so splitting the image into patches is a reshape and a transpose, and the layer is one matrix
product per group. The modules keep their parameters, names and shapes; only ``forward`` differs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Minimum number of elements in a kernel's window for lowering. It depends on the layer alone, so a file is always lowered the
# same way. Speedup of forward and backward by lowering, for 54 layers (1x1 to 16x16, 1 to 1024 channels, 1 to 32 groups, batch
# sizes 1, 4 and 32; one thread of an AMD EPYC, CPU time, alternating runs): 1x1 to 3x3 0.4 to 0.9, except for one of 17 layers,
# because extracting small patches from NCHW costs more than the convolution; 4x4 and 5x5 0.7 to 1.3, more often slower; 6x6 0.9
# to 1.8; 8x8 1.0 to 4; 16x16 0.9 to 11. Grouped layers behave the same.
SMALLEST_WINDOW = 36


# oneDNN's matrix product in PyTorch. On non-Intel processors MKL, which torch.mm calls, takes up to twice as long for few
# patches; from about 256 patches on, MKL is faster by a sixth.
FEW = 256
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a`` (G, M, K) times the transpose of ``b`` (G, N, K), of shape (G, M, N). Either may be a transposed view."""
    if len(a) > 1:
        return torch.bmm(a, b.mT)
    few = min(a.shape[1:]) < FEW  # patches: rows of the output, or terms of the weight gradient's sum
    if ONEDNN is not None and few and a.device.type == "cpu" and a.dtype == b.dtype == torch.float32:
        result: Tensor = ONEDNN(a[0], _dense(b[0]), None, "none", [], "")
    else:
        result = torch.mm(a[0], b[0].t())
    return result[None]


def _dense(matrix: Tensor) -> Tensor:
    """Return a matrix without gaps between its rows or columns; oneDNN takes 200 times as long for a second factor with gaps."""
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


class Product(torch.autograd.Function):
    """:func:`product` with its gradients, which are computed by it as well."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return product(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        needs_a, needs_b = ctx.needs_input_grad
        of_a = Product.apply(gradient, b.mT) if needs_a else None
        if not needs_b:
            return of_a, None
        if b.is_contiguous():
            return of_a, Product.apply(gradient.mT, a.mT)
        # return the gradient in the memory layout of the weights, so that it is not copied
        return of_a, Product.apply(a.mT, gradient.mT).mT


def _multiplied(a: Tensor, b: Tensor) -> Tensor:
    """Return :func:`product` with gradients; like PyTorch's own products, in the data type of torch.autocast where that is on."""
    if torch.is_autocast_enabled(a.device.type):
        dtype = torch.get_autocast_dtype(a.device.type)
        a, b = a.to(dtype), b.to(dtype)
    return Product.apply(a, b)  # type: ignore[no-any-return]


class PatchConv2d(nn.Conv2d):
    """Conv2d with kernel == stride and no padding: multiply patches (N*h*w, C*k*k) by the weights and reshape to NCHW."""

    def forward(self, x: Tensor) -> Tensor:
        (kh, kw), groups = self.kernel_size, self.groups
        if x.dim() != 4 or x.shape[1] != self.in_channels or x.shape[2] < kh or x.shape[3] < kw:
            return super().forward(x)  # an image without a batch axis, or an error that PyTorch reports
        n, c, height, width = x.shape
        h, w = height // kh, width // kw
        x = x[:, :, : h * kh, : w * kw]  # pixels beyond the last complete window are ignored
        patches = x.reshape(n, groups, c // groups, h, kh, w, kw).permute(1, 0, 3, 5, 2, 4, 6)
        weight = self.weight.reshape(groups, self.out_channels // groups, -1)
        out = _multiplied(patches.reshape(groups, n * h * w, -1), weight)
        out = out.reshape(groups, n, h, w, -1).permute(1, 0, 4, 2, 3).reshape(n, self.out_channels, h, w)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)


class PatchConvTranspose2d(nn.ConvTranspose2d):
    """ConvTranspose2d with kernel == stride and no padding: each input pixel produces one patch of the output."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels or output_size is not None:
            return super().forward(x, output_size)
        (kh, kw), groups, (n, c, h, w) = self.kernel_size, self.groups, x.shape
        pixels = x.reshape(n, groups, c // groups, h, w).permute(1, 0, 3, 4, 2).reshape(groups, n * h * w, -1)
        out = _multiplied(pixels, self.weight.reshape(groups, c // groups, -1).mT)
        out = out.reshape(groups, n, h, w, -1, kh, kw).permute(1, 0, 4, 2, 5, 3, 6)
        out = out.reshape(n, self.out_channels, h * kh, w * kw)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)


def layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of ``model`` that are lowered."""
    return [module for module in model.modules() if isinstance(module, (PatchConv2d, PatchConvTranspose2d))]


def lower(model: nn.Module) -> list[str]:
    """Lower all eligible layers of ``model`` in place and return their names."""
    names = []
    for name, module in model.named_modules():
        if type(module) is nn.Conv2d and _separate(module):
            module.__class__ = PatchConv2d
        elif type(module) is nn.ConvTranspose2d and _separate(module) and module.output_padding == (0, 0):
            module.__class__ = PatchConvTranspose2d
        else:
            continue
        names.append(name)
    return names


def _separate(module: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Return whether windows neither overlap nor leave gaps, and are large enough for lowering to be faster."""
    kh, kw = module.kernel_size
    return (
        module.kernel_size == module.stride
        and module.padding in ((0, 0), "valid")
        and module.dilation == (1, 1)
        and kh * kw >= SMALLEST_WINDOW
    )
