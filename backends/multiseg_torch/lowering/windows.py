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

from multiseg_torch.class_losses import FEWEST_ROWS
from multiseg_torch.lowering.products import Product, in_one_dtype, no_view, product

Pair = tuple[int, int]

# When the product is faster. Speedup of forward and backward, of layers with a kernel of two strides (`python
# benchmarks/lowering.py torch`): stride 2 0.3 to 0.9, stride 4 0.7 to 1.3, stride 8 and more 1.6 to 9.5 for up to 40 channels;
# for 64 channels 1.1 to 4.1, but 0.7 to 1.2 in prediction with strides of 8 and 16.
SMALLEST_STRIDE = 8
MOST_CHANNELS = 40


class WindowConvTranspose2d(nn.ConvTranspose2d):
    """ConvTranspose2d with kernel > stride: multiply windows (N*h*w, r*r*C) by the weights, which gives blocks of the output.

    The output has the order of the input in memory, NCHW or NHWC, but NCHW if it has few channels: a loss compares the scores of
    few classes in NCHW.
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
        outputs, (sh, sw) = weight.shape[1], stride
        channels_first = x.is_contiguous() or outputs < FEWEST_ROWS
        windows, factors = _windows(x, weight, stride), _factors(weight, stride, channels_first)
        ctx.made = windows, factors, channels_first
        n, rows, columns = _grid(x, weight, stride)
        blocks = product(windows, factors.mT)
        if channels_first:
            out = blocks.reshape(n, rows, columns, outputs, sh, sw).permute(0, 3, 1, 4, 2, 5)
            out = out.reshape(n, outputs, rows * sh, columns * sw)
        else:
            out = blocks.reshape(n, rows, columns, sh, sw, outputs).permute(0, 1, 3, 2, 4, 5)
            out = out.reshape(n, rows * sh, columns * sw, outputs).permute(0, 3, 1, 2)
        (top, left), (height, width) = padding, size
        return no_view(out[:, :, top : top + height, left : left + width])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        channels_first = gradient.stride(1) != 1  # a copy in the order of the gradient is the fastest
        windows, factors, as_before = ctx.made
        # what is made anew leads from the image and the kernel to the gradients
        differentiable = torch.is_grad_enabled()
        if differentiable:
            windows = _windows(x, weight, ctx.stride)
        if differentiable or channels_first != as_before:
            factors = _factors(weight, ctx.stride, channels_first)
        blocks = _blocks(gradient, x, weight, ctx, channels_first)
        of_x = _image_gradient(x, weight, factors, blocks, ctx.stride) if needs_x else None
        of_weight = _kernel_gradient(weight, windows, blocks, ctx.stride, channels_first) if needs_weight else None
        return of_x, of_weight, None, None, None


def _strides(weight: Tensor, stride: Pair) -> Pair:
    """Return r, how many strides high and wide a kernel is."""
    return weight.shape[2] // stride[0], weight.shape[3] // stride[1]


def _grid(x: Tensor, weight: Tensor, stride: Pair) -> tuple[int, int, int]:
    """Return the number of images, and the rows and columns of blocks: h + r - 1 and w + r - 1."""
    rh, rw = _strides(weight, stride)
    return len(x), x.shape[2] + rh - 1, x.shape[3] + rw - 1


def _windows(x: Tensor, weight: Tensor, stride: Pair) -> Tensor:
    """Return the windows of r x r pixels of an image with zeros around it: (1, N * (h + r - 1) * (w + r - 1), r * r * C)."""
    rh, rw = _strides(weight, stride)
    pixels = functional.pad(x.permute(0, 2, 3, 1), (0, 0, rw - 1, rw - 1, rh - 1, rh - 1))
    windows = pixels.unfold(1, rh, 1).unfold(2, rw, 1).permute(0, 1, 2, 4, 5, 3)
    return windows.reshape(1, -1, rh * rw * x.shape[1])


def _factors(weight: Tensor, stride: Pair, channels_first: bool) -> Tensor:
    """Return a kernel as the factors of windows for a block: (1, r * r * C, O * s * s), the last axis with O first or last."""
    (sh, sw), (rh, rw) = stride, _strides(weight, stride)
    parts = weight.reshape(*weight.shape[:2], rh, sh, rw, sw).flip(2, 4)
    parts = parts.permute(2, 4, 0, 1, 3, 5) if channels_first else parts.permute(2, 4, 0, 3, 5, 1)
    return parts.reshape(1, rh * rw * weight.shape[0], -1)


def _blocks(gradient: Tensor, x: Tensor, weight: Tensor, ctx: Any, channels_first: bool) -> Tensor:
    """Return the blocks of the output's gradient: (1, N * (h + r - 1) * (w + r - 1), O * s * s), the last axis as in _factors."""
    (sh, sw), (top, left), (height, width) = ctx.stride, ctx.padding, ctx.size
    n, rows, columns = _grid(x, weight, ctx.stride)
    around = (left, columns * sw - left - width, top, rows * sh - top - height)
    if any(around):
        gradient = functional.pad(gradient, around)
    blocks = gradient.reshape(n, -1, rows, sh, columns, sw)
    blocks = blocks.permute(0, 2, 4, 1, 3, 5) if channels_first else blocks.permute(0, 2, 4, 3, 5, 1)
    return blocks.reshape(1, n * rows * columns, -1)


def _image_gradient(x: Tensor, weight: Tensor, factors: Tensor, blocks: Tensor, stride: Pair) -> Tensor:
    """Return the gradient of the windows, the product of the blocks with the kernel, summed over the windows of each pixel."""
    (n, inputs, h, w), (rh, rw) = x.shape, _strides(weight, stride)
    windows = Product.apply(blocks, factors)
    windows = windows.reshape(*_grid(x, weight, stride), rh, rw, inputs).contiguous()
    image, row, column, down, across, channel = windows.stride()
    # pixel i of a window is pixel i - 1 of the next one
    of_pixel = windows.as_strided(
        (n, h, w, rh, rw, inputs),
        (image, row, column, row - down, column - across, channel),
        (rh - 1) * down + (rw - 1) * across,
    )
    of_column: Tensor = sum(of_pixel.unbind(3))
    of_image: Tensor = sum(of_column.unbind(3))
    return of_image.permute(0, 3, 1, 2)


def _kernel_gradient(weight: Tensor, windows: Tensor, blocks: Tensor, stride: Pair, channels_first: bool) -> Tensor:
    """Return the product of the windows with the blocks of the gradient, in the shape of the kernel and its order in memory."""
    (inputs, outputs), (sh, sw), (rh, rw) = weight.shape[:2], stride, _strides(weight, stride)
    # the other way round takes up to twice as long
    parts: Tensor = Product.apply(windows.mT, blocks.mT)
    if channels_first:
        parts = parts.reshape(rh, rw, inputs, outputs, sh, sw).permute(2, 3, 0, 4, 1, 5)
    else:
        parts = parts.reshape(rh, rw, inputs, sh, sw, outputs).permute(2, 5, 0, 3, 1, 4)
    parts = parts.flip(2, 4)
    if weight.is_contiguous():
        return parts.reshape(weight.shape)
    return parts.permute(0, 2, 3, 4, 5, 1).reshape(inputs, rh * sh, rw * sw, outputs).permute(0, 3, 1, 2)


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
