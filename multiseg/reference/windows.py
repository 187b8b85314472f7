"""Windows over images: convolutions, their adjoints, and the windows of poolings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg.reference.bounded import Array
from multiseg.topology.layer import Shape
from multiseg.topology.vocabulary import window_pads


@dataclass(frozen=True)
class Windows:
    """``count`` (rows, columns) windows over an image of (H, W); ``pads`` are top and left."""

    image: Shape
    count: Shape
    kernel: Shape
    strides: Shape
    dilations: Shape
    pads: Shape

    @classmethod
    def of(cls, parameters: Mapping[str, Any], image: Shape, count: Shape) -> Windows:
        """Return the windows for a layer's parameters, with auto_pad resolved for the size of the image."""
        kernel = tuple(parameters["kernel_shape"])
        strides, dilations = (tuple(parameters[key]) for key in ("strides", "dilations"))
        return cls(tuple(image), tuple(count), kernel, strides, dilations, tuple(window_pads(parameters, image)[:2]))

    @property
    def overlap(self) -> int:
        """Maximum number of windows that contain a pixel."""
        return math.prod(-(-k // s) for k, s in zip(self.kernel, self.strides, strict=True))

    def canvas(self) -> Shape:
        """Return the size of the padded image that contains all windows."""
        return tuple(
            max((m - 1) * s + (k - 1) * d + 1, n + pad)
            for n, m, k, s, d, pad in zip(
                self.image, self.count, self.kernel, self.strides, self.dilations, self.pads, strict=True
            )
        )

    def gather(self, images: Array, fill: float = 0.0) -> Array:
        """Return all windows (N, C, rows, columns, kh, kw) of images (N, C, H, W) padded with ``fill``."""
        (top, left), (height, width) = self.pads, self.canvas()
        padded = np.full((*images.shape[:2], height, width), fill, images.dtype)
        padded[:, :, top : top + self.image[0], left : left + self.image[1]] = images
        n, c, y, x = padded.strides
        (sy, sx), (dy, dx) = self.strides, self.dilations
        shape = (*images.shape[:2], *self.count, *self.kernel)
        return np.lib.stride_tricks.as_strided(padded, shape, (n, c, y * sy, x * sx, y * dy, x * dx), writeable=False)

    def scatter(self, windows: Array) -> Array:
        """Return the adjoint of :meth:`gather`: the sum of all windows (N, C, rows, columns, kh, kw) at their positions."""
        (rows, columns), (sy, sx), (dy, dx) = self.count, self.strides, self.dilations
        canvas = np.zeros((*windows.shape[:2], *self.canvas()))
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                y, x = (
                    slice(i * dy, i * dy + (rows - 1) * sy + 1, sy),
                    slice(j * dx, j * dx + (columns - 1) * sx + 1, sx),
                )
                canvas[:, :, y, x] += windows[:, :, :, :, i, j]
        (top, left), (height, width) = self.pads, self.image
        image: Array = canvas[:, :, top : top + height, left : left + width]
        return image

    # A convolution is one product of matrices for each of its groups: kernels (O/g, C/g kh kw), patches
    # (C/g kh kw, N rows columns), and maps (O/g, N rows columns). Its three bilinear maps are these products; a deconvolution is
    # the second of them. Patches lie in memory so that long rows are copied and added up: those of the maps, or those of the
    # kernels if they are longer.

    def convolve(self, images: Array, kernels: Array, group: int) -> Array:
        """Return maps (N, O, rows, columns) of images (N, C, H, W) and kernels (O, C/g, kh, kw)."""
        parts = [
            kernel.reshape(len(kernel), -1) @ self._patches(part)
            for part, kernel in zip(np.split(images, group, 1), np.split(kernels, group), strict=True)
        ]
        maps = np.concatenate(parts).reshape(-1, len(images), *self.count)
        return np.ascontiguousarray(maps.swapaxes(0, 1))

    def spread(self, maps: Array, kernels: Array, group: int) -> Array:
        """Return the adjoint in the images: (N, C, H, W) of maps (N, O, rows, columns) and kernels."""
        parts = []
        for part, kernel in zip(np.split(maps, group, 1), np.split(kernels, group), strict=True):
            columns, matrix = _columns(part), kernel.reshape(len(kernel), -1)
            if self._has_wide_kernel:
                patches = (columns.T @ matrix).reshape(len(maps), *self.count, *kernel.shape[1:])
                parts.append(self.scatter(patches.transpose(0, 3, 1, 2, 4, 5)))
            else:
                patches = (matrix.T @ columns).reshape(*kernel.shape[1:], len(maps), *self.count)
                parts.append(self.scatter(patches.transpose(3, 0, 4, 5, 1, 2)))
        return np.concatenate(parts, 1)

    def correlate(self, images: Array, maps: Array, group: int) -> Array:
        """Return the adjoint in the kernels: (O, C/g, kh, kw) of images and maps."""
        parts = []
        for image, part in zip(np.split(images, group, 1), np.split(maps, group, 1), strict=True):
            product = _columns(part) @ self._patches(image).T
            parts.append(product.reshape(part.shape[1], image.shape[1], *self.kernel))
        return np.concatenate(parts)

    def _patches(self, images: Array) -> Array:
        windows, patches = self.gather(images), math.prod(self.count) * len(images)
        if self._has_wide_kernel:
            matrix: Array = windows.transpose(0, 2, 3, 1, 4, 5).reshape(patches, -1).T
        else:
            matrix = windows.transpose(1, 4, 5, 0, 2, 3).reshape(-1, patches)
        return matrix

    @property
    def _has_wide_kernel(self) -> bool:
        return self.kernel[1] > self.count[1]


def _columns(maps: Array) -> Array:
    """Return (O, N rows columns) of (N, O, rows, columns)."""
    return np.ascontiguousarray(maps.swapaxes(0, 1)).reshape(maps.shape[1], -1)
