"""Transposed convolutions with large kernels, as the upsampling of FCN-8s and FCN-32s, as one matrix product.

A transposed convolution with stride s writes blocks of s x s pixels. With a kernel of r strides, a block depends on a window of
r x r pixels of the input: it is the product of these pixels with the kernel's r x r blocks in reverse order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from multiseg_torch.lowering.products import multiplied

# When the product is faster. Speedup of forward and backward, for 60 layers with a kernel of two strides (2 to 64 channels,
# strides 2 to 32, batch sizes 1 and 8; one thread of an AMD EPYC, CPU time, alternating runs): stride 2 0.4 to 0.8, stride 4
# 0.6 to 0.9, stride 8 and more 1.1 to 4.5, above 40 channels 0.9 to 1.4, there slower in prediction. Kernels between two
# multiples of the stride, filled with zeros: 0.3 to 1.0 in NHWC. With groups: 0.8 to 1.5, slower in prediction.
SMALLEST_STRIDE = 8
MOST_CHANNELS = 40


class WindowConvTranspose2d(nn.ConvTranspose2d):
    """ConvTranspose2d with kernel > stride: multiply windows (N*h*w, r*r*C) by the weights, which gives blocks of the output.

    The output has the order of the input in memory, NCHW or NHWC.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels or output_size is not None:
            return super().forward(x, output_size)
        (n, c, h, w), (kh, kw), (sh, sw), (top, left) = x.shape, self.kernel_size, self.stride, self.padding
        height = (h - 1) * sh - 2 * int(top) + kh + self.output_padding[0]
        width = (w - 1) * sw - 2 * int(left) + kw + self.output_padding[1]
        if min(height, width) < 1:
            return super().forward(x)  # an error that PyTorch reports
        rh, rw, outputs = kh // sh, kw // sw, self.out_channels
        rows, columns = h + rh - 1, w + rw - 1

        pixels = functional.pad(x.permute(0, 2, 3, 1), (0, 0, rw - 1, rw - 1, rh - 1, rh - 1))
        windows = torch.cat([pixels[:, i : i + rows, j : j + columns] for i in range(rh) for j in range(rw)], 3)
        windows = windows.reshape(1, n * rows * columns, rh * rw * c)
        weight = self.weight.reshape(c, outputs, rh, sh, rw, sw).flip(2, 4).permute(1, 3, 5, 2, 4, 0)
        if x.is_contiguous():
            blocks = multiplied(windows, weight.reshape(1, outputs * sh * sw, rh * rw * c))
            out = blocks.reshape(n, rows, columns, outputs, sh, sw).permute(0, 3, 1, 4, 2, 5)
            out = out.reshape(n, outputs, rows * sh, columns * sw)
        else:
            blocks = multiplied(windows, weight.permute(1, 2, 0, 3, 4, 5).reshape(1, sh * sw * outputs, rh * rw * c))
            out = blocks.reshape(n, rows, columns, sh, sw, outputs).permute(0, 1, 3, 2, 4, 5)
            out = out.reshape(n, rows * sh, columns * sw, outputs).permute(0, 3, 1, 2)
        out = out[:, :, top : top + height, left : left + width]
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)


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
