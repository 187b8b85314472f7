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

    # A convolution is one product of matrices for each of its groups: patches (N rows columns, C/g kh kw), kernels, and maps
    # (N rows columns, O/g). Its three bilinear maps are these products; a deconvolution is the second of them.

    def convolve(self, images: Array, kernels: Array, group: int) -> Array:
        """Return maps (N, O, rows, columns) of images (N, C, H, W) and kernels (O, C/g, kh, kw)."""
        parts = [
            self._patches(part) @ kernel.reshape(len(kernel), -1).T
            for part, kernel in zip(np.split(images, group, 1), np.split(kernels, group), strict=True)
        ]
        return np.ascontiguousarray(
            np.concatenate(parts, 1).reshape(len(images), *self.count, -1).transpose(0, 3, 1, 2)
        )

    def spread(self, maps: Array, kernels: Array, group: int) -> Array:
        """Return the adjoint in the images: (N, C, H, W) of maps (N, O, rows, columns) and kernels."""
        parts = []
        for part, kernel in zip(np.split(maps, group, 1), np.split(kernels, group), strict=True):
            patches = _rows(part) @ kernel.reshape(len(kernel), -1)
            patches = patches.reshape(len(maps), *self.count, *kernel.shape[1:])
            parts.append(self.scatter(patches.transpose(0, 3, 1, 2, 4, 5)))
        return np.concatenate(parts, 1)

    def correlate(self, images: Array, maps: Array, group: int) -> Array:
        """Return the adjoint in the kernels: (O, C/g, kh, kw) of images and maps."""
        parts = []
        for image, part in zip(np.split(images, group, 1), np.split(maps, group, 1), strict=True):
            product = _rows(part).T @ self._patches(image)
            parts.append(product.reshape(part.shape[1], image.shape[1], *self.kernel))
        return np.concatenate(parts)

    def _patches(self, images: Array) -> Array:
        windows: Array = self.gather(images).transpose(0, 2, 3, 1, 4, 5)
        return windows.reshape(math.prod(windows.shape[:3]), -1)


def _rows(maps: Array) -> Array:
    """Return (N rows columns, O) of (N, O, rows, columns)."""
    return np.ascontiguousarray(maps.transpose(0, 2, 3, 1)).reshape(-1, maps.shape[1])
