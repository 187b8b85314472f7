"""Convert memory layouts; no other module does.

The core uses the neutral layout throughout: images are CHW or NCHW, RGB, as stored (uint8, or float32 for float data). A
backend declares its data order and channel order; a :class:`Layout` converts neutral batches to it, and outputs back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from multiseg.errors import SettingsError

Array = NDArray[Any]
Floats = NDArray[np.float32]
DataOrder = Literal["NCHW", "NHWC"]
ChannelOrder = Literal["RGB", "BGR"]
ImageOrder = Literal["CHW", "HWC"]  # of one image
DATA_ORDERS: dict[ImageOrder, DataOrder] = {"CHW": "NCHW", "HWC": "NHWC"}


def to_channels_first(image: Array) -> Array:
    """Return ``(..., H, W, C)`` as ``(..., C, H, W)``; a view."""
    return np.moveaxis(image, -1, -3)


def to_channels_last(image: Array) -> Array:
    """Return ``(..., C, H, W)`` as ``(..., H, W, C)``; a view."""
    return np.moveaxis(image, -3, -1)


def swap_red_blue(image: Array) -> Array:
    """Convert ``(..., C, H, W)`` between RGB and BGR; a view. Images without three channels are returned unchanged."""
    return image[..., ::-1, :, :] if image.shape[-3] == 3 else image


@dataclass(frozen=True, eq=False)
class Layout:
    """The input layout of a network: data order, channel order, the mean to subtract, and the deviation to divide by.

    ``mean`` is None, one value per channel ``(C,)``, or a mean image ``(C, H, W)``; float32, RGB. If the input's height or
    width differs from that of the mean image, the mean image's average per channel is subtracted instead. ``std`` is None, or
    the standard deviation ``(C,)``, float32, RGB, by which the difference is divided. ``colours`` states whether three output
    channels are colours, and not the scores of three classes, whose order is never swapped. ``given_as`` are labels that the
    network receives as others: those that do not count, as one that its loss ignores.
    """

    data_order: DataOrder = "NCHW"
    channel_order: ChannelOrder = "RGB"
    mean: Floats | None = None
    colours: bool = True
    std: Floats | None = None
    given_as: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data_order not in ("NCHW", "NHWC"):
            raise SettingsError(f"data order {self.data_order!r} is unknown; it is NCHW or NHWC")
        if self.channel_order not in ("RGB", "BGR"):
            raise SettingsError(f"channel order {self.channel_order!r} is unknown; it is RGB or BGR")
        if self.mean is not None and self.mean.ndim not in (1, 3):
            raise SettingsError(f"a mean must have the shape (C,) or (C, H, W), not {self.mean.shape}")
        if self.std is not None and self.std.ndim != 1:
            raise SettingsError(f"a standard deviation must have the shape (C,), not {self.std.shape}")

    def features(self, batch: Array) -> Floats:
        """Convert neutral features ``(N, C, H, W)`` RGB to float32 in this layout: subtract the mean, divide by the deviation."""
        if self.mean is not None or self.std is not None:
            batch = batch.astype(np.float32)
        if self.mean is not None:
            batch -= self._mean_for(batch.shape)
        if self.std is not None:
            if len(self.std) != batch.shape[1]:
                raise SettingsError(
                    f"the standard deviation has {len(self.std)} channels, the images have {batch.shape[1]}"
                )
            batch /= self.std.astype(np.float32, copy=False).reshape(-1, 1, 1)
        return self._arrange(batch)

    def labels(self, batch: Array) -> Floats:
        """Convert neutral labels ``(N, C, H, W)`` RGB to float32 in this layout; mean and deviation apply to features only."""
        for label, other in self.given_as.items():
            batch = np.where(batch == label, other, batch)
        return self._arrange(batch)

    def output(self, batch: Array, contiguous: bool = True) -> Floats:
        """Convert a network's output, or any batch in this layout, to float32 ``(N, C, H, W)`` RGB.

        Vectors ``(N, C)``, such as the scores of the classes of an image, become images of one pixel. Without ``contiguous`` the
        result may be a view of ``batch``, which takes no memory.
        """
        if batch.ndim == 2:
            return np.ascontiguousarray(batch[:, :, None, None], dtype=np.float32)
        if batch.ndim != 4:
            raise SettingsError(f"a batch of images must have four axes; this one has the shape {batch.shape}")
        neutral = to_channels_first(batch) if self.data_order == "NHWC" else batch
        if self.channel_order == "BGR" and self.colours:
            neutral = swap_red_blue(neutral)
        return (np.ascontiguousarray if contiguous else np.asarray)(neutral, dtype=np.float32)

    def for_size(self, height: int, width: int) -> Layout:
        """Return this layout for images of one size: a mean image of another size is replaced by its average per channel."""
        if self.mean is None or self.mean.ndim == 1 or self.mean.shape[1:] == (height, width):
            return self
        return replace(self, mean=self.mean_per_channel())

    def for_part(self, rows: slice, columns: slice) -> Layout:
        """Return this layout for a crop of an image of the mean image's size: the same crop of the mean image is subtracted."""
        if self.mean is None or self.mean.ndim == 1:
            return self
        return replace(self, mean=self.mean[:, rows, columns])

    def activation(self, batch: Array) -> Floats:
        """Convert a layer's output to float32 ``(N, C, H, W)``; arrays without height and width keep their shape.

        The channels keep their order, since they are not colours.
        """
        neutral = to_channels_first(batch) if self.data_order == "NHWC" and batch.ndim == 4 else batch
        return np.ascontiguousarray(neutral, dtype=np.float32)

    def _arrange(self, batch: Array) -> Floats:
        if batch.ndim != 4:
            raise SettingsError(f"a batch of images must have four axes; this one has the shape {batch.shape}")
        if self.channel_order == "BGR":
            batch = swap_red_blue(batch)
        if self.data_order == "NHWC":
            batch = to_channels_last(batch)
        return np.ascontiguousarray(batch, dtype=np.float32)

    def _mean_for(self, shape: tuple[int, ...]) -> Floats:
        assert self.mean is not None
        if len(self.mean) != shape[1]:
            raise SettingsError(f"the mean has {len(self.mean)} channels, the images have {shape[1]}")
        if self.mean.ndim == 3 and self.mean.shape[1:] == shape[2:]:
            return self.mean.astype(np.float32)
        return self.mean_per_channel().reshape(-1, 1, 1)

    def mean_per_channel(self) -> Floats:
        """Return the mean of each channel (C,), RGB; the mean must not be None."""
        assert self.mean is not None
        per_channel = self.mean if self.mean.ndim == 1 else self.mean.mean(axis=(1, 2), dtype=np.float64)
        return per_channel.astype(np.float32)
