"""Convolutions whose kernel size equals their stride, as one matrix product over the patches of the whole batch.

The windows do not overlap, so splitting the image into patches is a reshape and a transpose, and the layer is one matrix
product per group.
"""

from __future__ import annotations

from torch import Tensor, nn

from multiseg_torch.lowering.products import multiplied

# Minimum number of elements in a kernel's window for lowering. It depends on the layer alone, so a file is always lowered the
# same way. Speedup of forward and backward by lowering, for 54 layers (1x1 to 16x16, 1 to 1024 channels, 1 to 32 groups, batch
# sizes 1, 4 and 32; one thread of an AMD EPYC, CPU time, alternating runs): 1x1 to 3x3 0.4 to 0.9, except for one of 17 layers,
# because extracting small patches from NCHW costs more than the convolution; 4x4 and 5x5 0.7 to 1.3, more often slower; 6x6 0.9
# to 1.8; 8x8 1.0 to 4; 16x16 0.9 to 11. Grouped layers behave the same.
SMALLEST_WINDOW = 36


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
        out = multiplied(patches.reshape(groups, n * h * w, -1), weight)
        out = out.reshape(groups, n, h, w, -1).permute(1, 0, 4, 2, 3).reshape(n, self.out_channels, h, w)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)


class PatchConvTranspose2d(nn.ConvTranspose2d):
    """ConvTranspose2d with kernel == stride and no padding: each input pixel produces one patch of the output."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels or output_size is not None:
            return super().forward(x, output_size)
        (kh, kw), groups, (n, c, h, w) = self.kernel_size, self.groups, x.shape
        pixels = x.reshape(n, groups, c // groups, h, w).permute(1, 0, 3, 4, 2).reshape(groups, n * h * w, -1)
        out = multiplied(pixels, self.weight.reshape(groups, c // groups, -1).mT)
        out = out.reshape(groups, n, h, w, -1, kh, kw).permute(1, 0, 4, 2, 5, 3, 6)
        out = out.reshape(n, self.out_channels, h * kh, w * kw)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)


def divides_image(module: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Return whether windows neither overlap nor leave gaps, and are large enough for lowering to be faster."""
    kh, kw = module.kernel_size
    return (
        module.kernel_size == module.stride
        and module.padding in ((0, 0), "valid")
        and module.dilation == (1, 1)
        and kh * kw >= SMALLEST_WINDOW
    )
