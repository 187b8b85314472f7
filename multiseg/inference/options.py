"""How images are put into a network and its output is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from multiseg.errors import SettingsError, setting
from multiseg.images import PixelConversion
from multiseg.layout import ChannelOrder, DataOrder, Layout

DATA_ORDERS: dict[str, DataOrder] = {"CHW": "NCHW", "HWC": "NHWC"}


@dataclass(frozen=True)
class Options:
    """How images are put into a network, and its output taken out.

    - ``resize`` to the dataset's size, or take images as they are. Where the network does not keep such a size: an error, or
      with ``pad`` the image's last row and column are repeated to the next size that it keeps, and the output is cropped.
    - ``tile``: images larger than so many pixels a side go through the network in tiles, which overlap as far as the network
      looks around a pixel, so that the output is that of the whole image.
    - ``pixel_conversion``, ``channel_order`` and ``data_order`` are DIGITS' options of its "Image output" view: ``clip`` to
      0..255 or ``normalize`` to it, RGB or BGR, CHW or HWC. None for the orders: as the backend declares.

    Raises SettingsError for a value that cannot be.
    """

    resize: bool = True
    pad: bool = False
    tile: int | None = None
    pixel_conversion: PixelConversion = "clip"
    channel_order: ChannelOrder | None = None
    data_order: Literal["CHW", "HWC"] | None = None

    def __post_init__(self) -> None:
        if self.tile is not None and (not isinstance(self.tile, int) or self.tile < 1):
            raise SettingsError(f"{setting('tile', self.tile)}: must be a whole number of pixels from 1")
        if self.resize and (self.pad or self.tile):
            raise SettingsError(
                f"{setting('pad')} and {setting('tile')} are for images that are not resized; "
                f"add {setting('resize', False)}"
            )
        choices: dict[str, tuple[str | None, ...]] = {
            "pixel_conversion": ("clip", "normalize"),
            "channel_order": ("RGB", "BGR", None),
            "data_order": ("CHW", "HWC", None),
        }
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                raise SettingsError(f"{setting(name, value)}: choose one of {', '.join(filter(None, known))}")

    def of_output(self, layout: Layout) -> Layout:
        """How to read the network's output: as declared, or as chosen."""
        return replace(
            layout,
            data_order=DATA_ORDERS[self.data_order] if self.data_order else layout.data_order,
            channel_order=self.channel_order or layout.channel_order,
            colours=layout.colours or self.channel_order is not None,
        )
