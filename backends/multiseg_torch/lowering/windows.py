"""Transposed convolutions with large kernels, as the upsampling of FCN-8s and FCN-32s, as one matrix product.

A transposed convolution with stride s writes blocks of s x s pixels. With a kernel of r strides, a block depends on a window of
r x r pixels of the input: it is the product of these pixels with the kernel's r x r blocks in reverse order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from multiseg_torch.lowering.products import Product, in_one_dtype, product

Pair = tuple[int, int]

# When the product is faster. Speedup of forward and backward, of layers with a kernel of two strides (`python
# benchmarks/lowering.py torch`): stride 2 0.6 to 0.9, stride 4 0.8 to 1.2, stride 8 and more 1.1 to 5.5 for up to 40 channels;
# for 64 channels 0.5 to 1.3, and 0.5 to 1.4 in prediction.
SMALLEST_STRIDE = 8
MOST_CHANNELS = 40


class WindowConvTranspose2d(nn.ConvTranspose2d):
    """ConvTranspose2d with kernel > stride: multiply windows (N*h*w, r*r*C) by the weights, which gives blocks of the output.

    The output has the order of the input in memory, NCHW or NHWC.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels or output_size is not None:
            return super().forward(x, output_size)
        axes = zip(x.shape[2:], self.stride, self.padding, self.kernel_size, self.output_padding)
        size = [(pixels - 1) * stride - 2 * int(pad) + k + extra for pixels, stride, pad, k, extra in axes]
        if min(size) < 1:
            return super().forward(x)  # an error that PyTorch reports
        x, weight = in_one_dtype(x, self.weight)
        out: Tensor = Upsampling.apply(x, weight, self.stride, self.padding, size)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)


class Upsampling(torch.autograd.Function):
    """The transposed convolution of an image (N, C, h, w) with a kernel (C, O, kh, kw) to an output of a size (height, width).

    Its gradient for the image is the convolution itself, which oneDNN computes faster than a product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, size: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.size = stride, padding, size
        windows, (sh, sw), outputs = _windows(x, weight, stride), stride, weight.shape[1]
        n, rows, columns, _ = windows.shape
        parts = _parts(weight, stride)
        if x.is_contiguous():
            blocks = product(windows.flatten(0, 2)[None], parts.flatten(3).flatten(0, 2)[None])
            out = blocks.reshape(n, rows, columns, outputs, sh, sw).permute(0, 3, 1, 4, 2, 5)
            out = out.reshape(n, outputs, rows * sh, columns * sw)
        else:
            parts = parts.permute(1, 2, 0, 3, 4, 5)
            blocks = product(windows.flatten(0, 2)[None], parts.flatten(3).flatten(0, 2)[None])
            out = blocks.reshape(n, rows, columns, sh, sw, outputs).permute(0, 1, 3, 2, 4, 5)
            out = out.reshape(n, rows * sh, columns * sw, outputs).permute(0, 3, 1, 2)
        (top, left), (height, width) = padding, size
        return out[:, :, top : top + height, left : left + width]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        of_x = functional.conv2d(gradient, weight, None, ctx.stride, ctx.padding) if needs_x else None
        of_weight = _kernel_gradient(x, weight, gradient, ctx) if needs_weight else None
        return of_x, of_weight, None, None, None


def _windows(x: Tensor, weight: Tensor, stride: Pair) -> Tensor:
    """Return the windows of r x r pixels of an image with zeros around it: (N, h + r - 1, w + r - 1, r * r * C)."""
    rh, rw = weight.shape[2] // stride[0], weight.shape[3] // stride[1]
    rows, columns = x.shape[2] + rh - 1, x.shape[3] + rw - 1
    pixels = functional.pad(x.permute(0, 2, 3, 1), (0, 0, rw - 1, rw - 1, rh - 1, rh - 1))
    return torch.cat([pixels[:, i : i + rows, j : j + columns] for i in range(rh) for j in range(rw)], 3)


def _parts(weight: Tensor, stride: Pair) -> Tensor:
    """Return a kernel as the factors of windows for the pixels of a block: (O, s, s, r, r, C)."""
    inputs, outputs, height, width = weight.shape
    (sh, sw), (rh, rw) = stride, (height // stride[0], width // stride[1])
    return weight.reshape(inputs, outputs, rh, sh, rw, sw).flip(2, 4).permute(1, 3, 5, 2, 4, 0)


def _kernel_gradient(x: Tensor, weight: Tensor, gradient: Tensor, ctx: Any) -> Tensor:
    """Return the product of the windows with the blocks of the gradient, in the shape of the kernel."""
    (sh, sw), (top, left), (height, width) = ctx.stride, ctx.padding, ctx.size
    windows, (inputs, outputs, kh, kw) = _windows(x, weight, ctx.stride), weight.shape
    n, rows, columns, _ = windows.shape
    around = (0, 0, left, columns * sw - left - width, top, rows * sh - top - height)
    blocks = functional.pad(gradient.permute(0, 2, 3, 1), around).reshape(n, rows, sh, columns, sw, outputs)
    blocks = blocks.permute(0, 1, 3, 2, 4, 5).reshape(1, n * rows * columns, sh * sw * outputs)
    parts: Tensor = Product.apply(blocks.mT, windows.flatten(0, 2)[None].mT)
    parts = parts.reshape(sh, sw, outputs, kh // sh, kw // sw, inputs).permute(5, 2, 3, 0, 4, 1)
    return parts.flip(2, 4).reshape(weight.shape)


def is_faster(module: nn.ConvTranspose2d) -> bool:
    """Return whether the product computes a transposed convolution, and takes less time."""
    axes = zip(module.kernel_size, module.stride, module.padding, module.output_padding, strict=True)
    return (
        module.dilation == (1, 1)
        and module.groups == 1
        and module.in_channels <= MOST_CHANNELS
        and all(
            k > s >= SMALLEST_STRIDE and k % s == 0 and extra <= int(p)  # else the output exceeds the blocks
            for k, s, p, extra in axes
        )
    )
