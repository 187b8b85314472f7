"""1x1 convolutions of images in NHWC, whose pixels are the rows of a matrix without any copy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Up to how many pixels in a batch MKL's product is used; for more, oneDNN's convolution is faster. Speedup of forward and
# backward over nn.Conv2d (`python benchmarks/lowering.py points`, one thread): fewer pixels 0.8 to 1.8, more 0.9 to 3.6. On two
# threads fewer pixels gain 1.1 to 1.6, as oneDNN, which PyTorch then uses for all, is slow for them; more take as long.
MOST_ROWS = 4095


class PointConv2d(nn.Conv2d):
    """Conv2d with a kernel of 1x1: multiply the pixels (N*H*W, C) of an image in NHWC by the weights.

    For many pixels it is oneDNN's convolution, which PyTorch does not use on one thread for less than 16 images unless the
    convolution is dilated; a kernel of one pixel dilates to itself. Images in NCHW are convolved as always.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        if x.shape[1] != self.in_channels or x.numel() > MOST_ROWS * x.shape[1]:
            return functional.conv2d(x, self.weight, self.bias, dilation=2)
        return functional.linear(x.movedim(1, 3), self.weight.flatten(1), self.bias).movedim(3, 1)


def is_point(module: nn.Conv2d) -> bool:
    """Return whether each pixel of the output depends on the same pixel of the image only."""
    size = (module.kernel_size, module.stride, module.padding)
    return size == ((1, 1), (1, 1), (0, 0)) and module.groups == 1
