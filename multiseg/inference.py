"""Testing with a trained network: an image, a list of images, a database.

image file -> pixels (uint8, CHW, RGB), resized or padded -> network, whole or in tiles -> output (float32, CHW), cropped
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from multiseg.dataset import open_split
from multiseg.dataset.feed import batches
from multiseg.dataset.reading import Split
from multiseg.errors import DatasetError, ImageError, ModelError, MultisegError, SettingsError, WorkerError
from multiseg.images import Channels, PixelConversion, Pixels, array_to_image, load_image, of_any_size, to_image
from multiseg.layout import ChannelOrder, DataOrder, Floats, Layout
from multiseg.metrics import THRESHOLD, Metrics

if TYPE_CHECKING:
    from multiseg.run import Run

IN_FLIGHT = 2  # batches asked for before the first one's output is awaited
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
            raise SettingsError(f"tile={self.tile!r}: must be a whole number of pixels from 1")
        if self.resize and (self.pad or self.tile):
            raise SettingsError("pad and tile are for images that are not resized; add resize=False (--no-resize)")
        choices: dict[str, tuple[str | None, ...]] = {
            "pixel_conversion": ("clip", "normalize"),
            "channel_order": ("RGB", "BGR", None),
            "data_order": ("CHW", "HWC", None),
        }
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                raise SettingsError(f"{name}={value!r}: choose one of {', '.join(filter(None, known))}")

    def of_output(self, layout: Layout) -> Layout:
        """How to read the network's output: as declared, or as chosen."""
        return replace(
            layout,
            data_order=DATA_ORDERS[self.data_order] if self.data_order else layout.data_order,
            channel_order=self.channel_order or layout.channel_order,
            colours=layout.colours or self.channel_order is not None,
        )


@dataclass(frozen=True, eq=False)
class Output:
    """A network's output for one image: ``array`` (C, H, W) float32 in RGB, and ``input``, what was put in, uint8."""

    array: Floats
    input: Pixels
    pixel_conversion: PixelConversion = "clip"
    source: Path | None = None

    @cached_property
    def image(self) -> Image.Image:
        """The picture of it. Raises ImageError unless it has one or three channels."""
        return to_image(self.array, self.pixel_conversion)

    @property
    def input_image(self) -> Image.Image:
        """The picture of what was put in."""
        return array_to_image(self.input)


@dataclass(frozen=True)
class Failure:
    """An image that could not be tested, and why."""

    source: Path
    error: MultisegError


def prepare(run: Run, image: str | Path, options: Options) -> Pixels:
    """An image file's pixels as the network's channels, resized where asked for. Raises ImageError."""
    channels, height, width = run.input_shape
    wanted: dict[int, Channels] = {1: "L", 3: "RGB"}
    with of_any_size() if options.tile else nullcontext():
        pixels = load_image(image, wanted.get(channels, "none"))
    if pixels.shape[0] != channels:
        raise ImageError(f"{image}: has {pixels.shape[0]} channels, the network takes {channels}")
    if options.resize and pixels.shape[1:] != (height, width):
        bilinear = Image.Resampling.BILINEAR
        pixels = np.stack([np.asarray(Image.fromarray(plane).resize((width, height), bilinear)) for plane in pixels])
    return pixels


def predict(run: Run, features: npt.NDArray[Any], options: Options) -> Floats:
    """Outputs (N, C, H, W) float32 RGB for images (N, C, H, W) uint8 RGB of one size.

    Raises ModelError for a size that the network does not keep, or whose tiles cannot be told.
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
    layout = run.layout.for_size(height, width)  # the mean that the image has subtracted, whatever a tile's size
    output = (_tiled if tiled else _whole)(run, features, layout, options)
    return output[:, :, :height, :width]


def padded(run: Run, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Images (N, C, H, W) with their last row and column repeated up to a size that the network keeps."""
    height, width = features.shape[2:]
    rows, columns = run.geometry.padded(height, width)
    return np.pad(features, ((0, 0), (0, 0), (0, rows - height), (0, columns - width)), mode="edge")


def _whole(run: Run, features: npt.NDArray[Any], layout: Layout, options: Options) -> Floats:
    height, width = features.shape[2:]
    try:
        output, _, _ = run.worker().call("predict", features=layout.features(features), labels=None)
    except (ModelError, WorkerError) as error:  # WorkerError: Caffe ends its process over blobs that do not fit
        raise ModelError(f"{error}{_advice(run, height, width)}") if _unkept(run, height, width) else error from None
    result = options.of_output(layout).output(output)
    declared = options.data_order is None and run.input_shape[1:] == run.label_shape[1:]
    if declared and result.shape[2:] != (height, width):
        raise ModelError(
            f"{run.model.name}: turns {width}x{height} pixels into {result.shape[3]}x{result.shape[2]}"
            f"{_advice(run, height, width)}"
        )
    return result


def _unkept(run: Run, height: int, width: int) -> bool:
    try:
        return not run.geometry.keeps(height, width)
    except MultisegError:
        return False


def _advice(run: Run, height: int, width: int) -> str:
    """What to do about a size that the network does not keep, as far as its description tells."""
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


def _tiled(run: Run, features: npt.NDArray[Any], layout: Layout, options: Options) -> Floats:
    assert options.tile is not None
    height, width = features.shape[2:]
    if not run.geometry.keeps(height, width):
        size = "x".join(map(str, run.geometry.output_size(height, width)[::-1]))
        raise ModelError(f"{run.model.name}: turns {width}x{height} pixels into {size}{_advice(run, height, width)}")
    output: Floats | None = None
    for rows, columns in run.geometry.tiles(height, width, options.tile):
        part = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        made = _whole(run, features[:, :, part[0], part[1]], layout.for_part(*part), options)
        if output is None:
            output = np.empty((*made.shape[:2], height, width), np.float32)
        output[:, :, rows.keep_start : rows.keep_stop, columns.keep_start : columns.keep_stop] = made[
            :,
            :,
            rows.keep_start - rows.start : rows.keep_stop - rows.start,
            columns.keep_start - columns.start : columns.keep_stop - columns.start,
        ]
    assert output is not None
    return output


def test_one(run: Run, image: str | Path, options: Options) -> Output:
    """The output for one image file. Raises ImageError and ModelError naming it."""
    found = next(test_list(run, [image], options))
    if isinstance(found, Failure):
        raise found.error
    return found


def test_list(run: Run, images: Iterable[str | Path], options: Options) -> Iterator[Output | Failure]:
    """Outputs in order, with Failures in the place of images that cannot be tested.

    Images of one size that follow each other go through the network together, as many as a validation batch holds pixels.
    """
    _, height, width = run.input_shape
    most = run.settings["val_batch_size"] * height * width
    together: list[Loaded] = []
    for image in images:
        loaded = _load(run, image, options)
        if together and (loaded.shape != together[0].shape or (len(together) + 1) * math.prod(loaded.shape[1:]) > most):
            yield from _together(run, together, options)
            together = []
        together.append(loaded)
    yield from _together(run, together, options)


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image of a list, or why it could not be loaded."""

    source: Path
    found: Pixels | MultisegError

    @property
    def shape(self) -> tuple[int, ...]:
        return () if isinstance(self.found, MultisegError) else self.found.shape


def _load(run: Run, image: str | Path, options: Options) -> Loaded:
    try:
        return Loaded(Path(image), prepare(run, image, options))
    except MultisegError as error:
        return Loaded(Path(image), error)


def _together(run: Run, some: list[Loaded], options: Options) -> Iterator[Output | Failure]:
    """Test images of one size at once; or tell of those that could not be loaded."""
    pixels = [each.found for each in some if not isinstance(each.found, MultisegError)]
    outputs: Iterable[Floats | MultisegError] = [each.found for each in some if isinstance(each.found, MultisegError)]
    if pixels:
        try:
            outputs = predict(run, np.stack(pixels), options)
        except (ModelError, SettingsError) as error:
            outputs = [type(error)(f"{each.source}: {error}") for each in some]
    for each, output in zip(some, outputs, strict=True):
        if isinstance(output, MultisegError) or isinstance(each.found, MultisegError):
            assert isinstance(output, MultisegError)
            yield Failure(each.source, output)
        else:
            yield Output(output, each.found, options.pixel_conversion, each.source)


def test_db(
    run: Run, path: str | Path, options: Options, batch_size: int | None, each: Callable[[int, Output], None] | None
) -> dict[str, Any]:
    """Loss and metrics over a database, in a stream; see Run.test_db."""
    split = open_split(path)
    size = batch_size or run.settings["val_batch_size"]
    metrics, total, seen = Metrics(run.settings.get("threshold", THRESHOLD)), 0.0, 0
    losses = measured = True
    run.worker()  # its start is no part of the pace
    began = time.perf_counter()
    for indices, output, labels, loss in _stream(run, split, size, options):
        seen += len(indices)
        losses = losses and loss is not None
        total += (loss or 0.0) * len(indices)
        if labels is None or labels.shape[1] != output.shape[1]:  # none, or class numbers, which have no such measures
            measured = False
        elif labels.shape != output.shape:
            raise DatasetError(
                f"{split.name}: has labels of {labels.shape[1:]} (C, H, W) where {run.model.name} makes {output.shape[1:]}"
            )
        else:
            metrics.add(output, labels)
        if each is not None:
            features, _ = split.read(indices)
            for index, feature, one in zip(indices, features, output, strict=True):
                each(int(index), Output(one, feature, options.pixel_conversion))
    seconds = time.perf_counter() - began
    scores: dict[str, Any] = metrics.result() if seen and measured else dict.fromkeys(metrics.result())
    return {
        "count": seen,
        "val_loss": total / seen if seen and losses else None,
        **scores,
        "seconds": seconds,
        "images_per_second": seen / seconds if seen else None,
    }


Tested = tuple[npt.NDArray[np.int64], Floats, npt.NDArray[Any] | None, float | None]


def _stream(run: Run, split: Split, batch_size: int, options: Options) -> Iterator[Tested]:
    """Positions, outputs, labels and loss of each batch; images of several sizes one by one."""
    if split.shape is not None and split.shape[0] != run.input_shape[0]:
        raise DatasetError(
            f"{split.name}: has images of {split.shape[0]} channels, {run.model.name} takes {run.input_shape[0]}"
        )
    if split.shape == run.input_shape:
        yield from _stream_batches(run, split, batch_size, options)
        return
    whole = 1 if split.shape is None else max(1, batch_size * run.input_shape[1] // split.shape[1])
    for start in range(0, len(split), whole):
        indices = np.arange(start, min(start + whole, len(split)))
        features, labels = split.read(indices)
        yield indices, predict(run, features, options), labels, None


def _stream_batches(run: Run, split: Split, batch_size: int, options: Options) -> Iterator[Tested]:
    """Batches of the size that the network was trained on, read ahead and sent ahead."""
    worker, read_out = run.worker(), options.of_output(run.layout)
    under_way: deque[Any] = deque()

    def collect() -> Tested:
        batch = under_way.popleft()
        output, loss, _ = worker.result()
        labels = None if batch.labels is None else run.layout.output(batch.labels)
        return batch.indices, read_out.output(output), labels, loss

    with batches(split, batch_size, layout=run.layout) as feed:
        for batch in feed:
            worker.submit("predict", features=batch.features, labels=batch.labels)
            under_way.append(batch)
            if len(under_way) >= IN_FLIGHT:
                yield collect()
        while under_way:
            yield collect()
