"""Options for testing: how images are prepared for a network, and how its output is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from multiseg.errors import SettingsError, setting
from multiseg.images import MOST_PIXELS, Exif, PixelConversion
from multiseg.layout import DATA_ORDERS, ChannelOrder, ImageOrder, Layout


@dataclass(frozen=True)
class Options:
    """Options for testing images with a network.

    - ``resize``: resize images to the dataset's size, or keep their size. For a size that the network does not preserve an error
      is raised; with ``pad`` the last row and column are repeated up to the next preserved size, and the output is cropped.
    - ``tile``: images larger than this many pixels a side are tested in tiles that overlap by the receptive field of the
      network, so that the output equals that of the whole image.
    - ``max_pixels``: images of more pixels are refused before they are decoded. None: 67,108,864 (8192x8192), with ``tile`` any
      number.
    - ``exif``: ``apply`` turns images by their EXIF orientation, ``ignore`` reads them as they are stored. None: as the training
      images were.
    - ``pixel_conversion``, ``channel_order`` and ``data_order`` are the options of DIGITS' "Image output" view: ``clip`` to
      0..255 or ``normalize`` to that range, RGB or BGR, CHW or HWC. None for the orders: as the backend declares.

    Raises SettingsError for an invalid value.
    """

    resize: bool = True
    pad: bool = False
    tile: int | None = None
    pixel_conversion: PixelConversion = "clip"
    channel_order: ChannelOrder | None = None
    data_order: ImageOrder | None = None
    exif: Exif | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.tile is not None and (not isinstance(self.tile, int) or self.tile < 1):
            raise SettingsError(f"{setting('tile', self.tile)}: must be a whole number of pixels from 1")
        if self.max_pixels is not None and (not isinstance(self.max_pixels, int) or self.max_pixels < 1):
            raise SettingsError(f"{setting('max_pixels', self.max_pixels)}: must be a whole number from 1")
        if self.resize and (self.pad or self.tile):
            raise SettingsError(
                f"{setting('pad')} and {setting('tile')} are for images that are not resized; "
                f"add {setting('resize', False)}"
            )
        choices: dict[str, tuple[str | None, ...]] = {
            "pixel_conversion": get_args(PixelConversion),
            "channel_order": (*get_args(ChannelOrder), None),
            "data_order": (*get_args(ImageOrder), None),
            "exif": (*get_args(Exif), None),
        }
        for name, valid_values in choices.items():
            value = getattr(self, name)
            if value not in valid_values:
                raise SettingsError(f"{setting(name, value)}: choose one of {', '.join(filter(None, valid_values))}")

    @property
    def most_pixels(self) -> int | None:
        """The number of pixels that an image may have; None for any."""
        return MOST_PIXELS if self.max_pixels is None and self.tile is None else self.max_pixels

    def of_output(self, layout: Layout) -> Layout:
        """Return the layout for reading the network's output: the declared one with the chosen orders."""
        return replace(
            layout,
            data_order=DATA_ORDERS[self.data_order] if self.data_order else layout.data_order,
            channel_order=self.channel_order or layout.channel_order,
            colours=layout.colours or self.channel_order is not None,
        )
