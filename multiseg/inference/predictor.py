"""Predict images of any size with a network: whole, padded, or in tiles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from multiseg.dataset.cropping import centre_crop, exceeds, steps, written
from multiseg.dataset.dataset import BYTE, FLOAT, HIGH_BYTE
from multiseg.errors import ImageError, ModelError, MultisegError, WorkerError, setting
from multiseg.images import Channels, Values, decode, read_bytes
from multiseg.inference.options import Options
from multiseg.inference.tested import TestedNetwork
from multiseg.layout import Floats, Layout


def prepare(run: TestedNetwork, image: str | Path, options: Options) -> Values:
    """Return an image file (C, H, W) with the network's channels and the values of its training images.

    If requested, it is resized to the dataset's size and cropped as in validation.

    Raises ImageError, also for values of more than 8 bits if the network was trained on 8-bit images, and the reverse.
    """
    channels, height, width = run.image_shape
    modes: dict[int, Channels] = {1: "L", 3: "RGB"}
    pixels = decode(
        read_bytes(image),
        os.fspath(image),
        modes.get(channels, "none"),
        exif=options.exif or run.exif,
        depth="8" if run.values == HIGH_BYTE else "keep",
        max_pixels=options.most_pixels,
    ).values
    if run.values == BYTE and pixels.dtype != np.uint8:
        raise ImageError(
            f"{image}: has values of more than 8 bits, the network was trained on 8-bit images; convert it to 8 bits, "
            "with the scale of those"
        )
    if run.values == FLOAT and pixels.dtype == np.uint8:
        raise ImageError(
            f"{image}: has values of 8 bits, the network was trained on images of more than 8 bits; use an image of that kind, "
            "or save an array with the scale of those as float32 with numpy.save"
        )
    if pixels.shape[0] != channels:
        raise ImageError(f"{image}: has {pixels.shape[0]} channels, the network takes {channels}")
    if options.resize and not run.mixed_sizes and pixels.shape[1:] != (height, width):
        bilinear = Image.Resampling.BILINEAR
        pixels = np.stack([np.asarray(Image.fromarray(plane).resize((width, height), bilinear)) for plane in pixels])
    if options.resize and run.val_crop is not None:
        if exceeds(run.val_crop, pixels.shape[1:]):
            raise ImageError(
                f"{image}: is {written(pixels.shape[1:])} pixels (height x width), the network is tested on the central "
                f"{written(run.val_crop)}; use a larger image, or {setting('resize', False)} to test the whole image"
            )
        pixels = centre_crop(pixels, run.val_crop, steps(run.input_shape[1:], run.label_shape[1:]))
    return pixels


def predict(run: TestedNetwork, features: npt.NDArray[Any], options: Options) -> Floats:
    """Return outputs (N, C, H, W) float32 RGB for images (N, C, H, W) RGB of one size.

    Raises ModelError for a size that the network does not preserve, or if its tiling cannot be determined.
    """
    height, width = size = features.shape[2:]
    tiled = options.tile is not None and max(size) > options.tile
    if not tiled and (size == run.input_shape[1:] or not options.pad):
        return _whole(run, features, run.layout, options)
    if run.input_shape[1:] != run.label_shape[1:]:
        raise ModelError(
            f"{run.model.name}: makes outputs of another size than its images; it can neither pad nor tile"
        )
    if options.pad:
        features = padded(run, features)
    layout = run.layout.for_size(height, width)  # the mean image is resized to the whole image, not to a tile
    output = (_tiled if tiled else _whole)(run, features, layout, options)
    return output[:, :, :height, :width]


def padded(run: TestedNetwork, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return images (N, C, H, W) with the last row and column repeated up to a size that the network preserves."""
    height, width = features.shape[2:]
    rows, columns = run.geometry.padded(height, width)
    return np.pad(features, ((0, 0), (0, 0), (0, rows - height), (0, columns - width)), mode="edge")


def _whole(run: TestedNetwork, features: npt.NDArray[Any], layout: Layout, options: Options) -> Floats:
    height, width = features.shape[2:]
    try:
        output, _, _ = run.worker().call("predict", features=layout.features(features), labels=None)
    except (ModelError, WorkerError) as error:  # WorkerError: Caffe aborts its process if blob shapes do not match
        raise ModelError(f"{error}{_advice(run, height, width)}") if _unkept(run, height, width) else error from None
    result = options.of_output(layout).output(output, contiguous=run.classes is None)
    declared = options.data_order is None and run.input_shape[1:] == run.label_shape[1:]
    if declared and result.shape[2:] != (height, width):
        raise ModelError(
            f"{run.model.name}: turns {width}x{height} pixels into {result.shape[3]}x{result.shape[2]}"
            f"{_advice(run, height, width)}"
        )
    return result


def _unkept(run: TestedNetwork, height: int, width: int) -> bool:
    try:
        return not run.geometry.keeps(height, width)
    except MultisegError:
        return False


def _advice(run: TestedNetwork, height: int, width: int) -> str:
    """Return how to fix a size that the network does not preserve, as far as its description allows."""
    try:
        rows, columns = run.geometry.padded(height, width)
    except MultisegError:
        return "; crop or pad the image to a size that it keeps"
    strides = run.geometry.strides
    multiples = f"{strides[0]}" if strides[0] == strides[1] else f"{strides[1]} across and {strides[0]} down"
    return (
        f"; height and width must be multiples of {multiples}: crop or pad the image ({columns}x{rows}; with pad it is padded "
        "to that and its output cropped back)"
    )


def _tiled(run: TestedNetwork, features: npt.NDArray[Any], layout: Layout, options: Options) -> Floats:
    assert options.tile is not None
    height, width = features.shape[2:]
    if not run.geometry.keeps(height, width):
        size = "x".join(map(str, run.geometry.output_size(height, width)[::-1]))
        raise ModelError(f"{run.model.name}: turns {width}x{height} pixels into {size}{_advice(run, height, width)}")
    output: Floats | None = None
    for rows, columns in run.geometry.tiles(height, width, options.tile):
        part = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        tile_output = _whole(run, features[:, :, part[0], part[1]], layout.for_part(*part), options)
        if output is None:
            output = np.empty((*tile_output.shape[:2], height, width), np.float32)
        output[:, :, rows.keep_start : rows.keep_stop, columns.keep_start : columns.keep_stop] = tile_output[
            :,
            :,
            rows.keep_start - rows.start : rows.keep_stop - rows.start,
            columns.keep_start - columns.start : columns.keep_stop - columns.start,
        ]
    assert output is not None
    return output
