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
# benchmarks/lowering.py torch`): stride 2 0.5 to 1.0, stride 4 0.9 to 1.5, stride 8 and more 1.0 to 8.4 for up to 40 channels;
# for 64 channels 0.6 to 1.9, and 0.4 to 1.3 in prediction.
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

    The gradients are products as well, of the blocks of the output's gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, size: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.size = stride, padding, size
        windows, (sh, sw), outputs = _windows(x, weight, stride), stride, weight.shape[1]
        n, rows, columns, _ = windows.shape
        parts = _parts(weight, stride)
        if x.is_contiguous():
            parts = parts.permute(2, 0, 1, 3, 4, 5)
            blocks = product(windows.flatten(0, 2)[None], _matrix(parts)[None])
            out = blocks.reshape(n, rows, columns, outputs, sh, sw).permute(0, 3, 1, 4, 2, 5)
            out = out.reshape(n, outputs, rows * sh, columns * sw)
        else:
            blocks = product(windows.flatten(0, 2)[None], _matrix(parts)[None])
            out = blocks.reshape(n, rows, columns, sh, sw, outputs).permute(0, 1, 3, 2, 4, 5)
            out = out.reshape(n, rows * sh, columns * sw, outputs).permute(0, 3, 1, 2)
        (top, left), (height, width) = padding, size
        return out[:, :, top : top + height, left : left + width]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        blocks = _blocks(gradient, x, weight, ctx)
        of_x = _image_gradient(x, weight, blocks, ctx.stride) if needs_x else None
        of_weight = _kernel_gradient(x, weight, blocks, ctx.stride) if needs_weight else None
        return of_x, of_weight, None, None, None


def _windows(x: Tensor, weight: Tensor, stride: Pair) -> Tensor:
    """Return the windows of r x r pixels of an image with zeros around it: (N, h + r - 1, w + r - 1, r * r * C)."""
    rh, rw = _strides(weight, stride)
    rows, columns = x.shape[2] + rh - 1, x.shape[3] + rw - 1
    pixels = functional.pad(x.permute(0, 2, 3, 1), (0, 0, rw - 1, rw - 1, rh - 1, rh - 1))
    return torch.cat([pixels[:, i : i + rows, j : j + columns] for i in range(rh) for j in range(rw)], 3)


def _strides(weight: Tensor, stride: Pair) -> Pair:
    """Return r, how many strides high and wide a kernel is."""
    return weight.shape[2] // stride[0], weight.shape[3] // stride[1]


def _parts(weight: Tensor, stride: Pair) -> Tensor:
    """Return a kernel as the factors of windows for the pixels of a block: (s, s, O, r, r, C)."""
    (sh, sw), (rh, rw) = stride, _strides(weight, stride)
    return weight.reshape(*weight.shape[:2], rh, sh, rw, sw).flip(2, 4).permute(3, 5, 1, 2, 4, 0)


def _matrix(parts: Tensor) -> Tensor:
    """Return the first three axes of ``parts`` as rows, the others as columns."""
    return parts.flatten(3).flatten(0, 2)


def _blocks(gradient: Tensor, x: Tensor, weight: Tensor, ctx: Any) -> Tensor:
    """Return the blocks of the gradient of the output: (1, N * (h + r - 1) * (w + r - 1), s * s * O)."""
    (sh, sw), (top, left), (height, width), (rh, rw) = ctx.stride, ctx.padding, ctx.size, _strides(weight, ctx.stride)
    n, rows, columns = len(x), x.shape[2] + rh - 1, x.shape[3] + rw - 1
    around = (0, 0, left, columns * sw - left - width, top, rows * sh - top - height)
    blocks = functional.pad(gradient.permute(0, 2, 3, 1), around).reshape(n, rows, sh, columns, sw, -1)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(1, n * rows * columns, -1)


def _image_gradient(x: Tensor, weight: Tensor, blocks: Tensor, stride: Pair) -> Tensor:
    """Return the gradient of the windows, the product of the blocks with the kernel, summed over the windows of each pixel."""
    (n, inputs, h, w), (rh, rw) = x.shape, _strides(weight, stride)
    windows = Product.apply(blocks, _matrix(_parts(weight, stride))[None].mT)
    windows = windows.reshape(n, h + rh - 1, w + rw - 1, rh, rw, inputs)
    places = [(rh - 1 - i, rw - 1 - j, i, j) for i in range(rh) for j in range(rw)]
    pixels: Tensor = sum(windows[:, top : top + h, left : left + w, i, j] for top, left, i, j in places)
    return pixels.permute(0, 3, 1, 2)


def _kernel_gradient(x: Tensor, weight: Tensor, blocks: Tensor, stride: Pair) -> Tensor:
    """Return the product of the windows with the blocks of the gradient, in the shape of the kernel."""
    windows, (inputs, outputs) = _windows(x, weight, stride), weight.shape[:2]
    parts: Tensor = Product.apply(
        windows.flatten(0, 2)[None].mT, blocks.mT
    )  # the other way round takes up to twice as long
    parts = parts.reshape(*_strides(weight, stride), inputs, *stride, outputs).permute(2, 5, 0, 3, 1, 4)
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
