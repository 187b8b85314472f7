"""Image sizes that a network preserves, and its receptive field, derived from the neutral description.

Tiles give the same output as the whole image under three conditions. They begin at multiples of the network's stride, so that
every layer's grid has the same position as in the whole image. Of a tile's output only the part is used that depends, in
every layer, on values within the tile: at a tile's own border layers pad with zeros, unlike within the image. And every layer
is local: its output depends on a window of fixed size. For any other layer NotLocal is raised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from multiseg.errors import ModelError, SettingsError, setting
from multiseg.topology import Layer, Shape, Topology
from multiseg.topology.vocabulary import VOCABULARY, ShapeError, crop_bounds, infer, types, window_pads

CHANNELS = (1, [1], (1,))  # the channels alone, as `axis` or `axes`
WINDOWS = types(lambda row: row.reach == "window")
TRANSPOSED = types(lambda row: row.reach == "transposed")

Span = tuple[int, int]  # first and last index along one axis


class NotLocal(Exception):
    """The output of a layer depends on more than a window of fixed size; the message names the layer."""


@dataclass(frozen=True)
class Cut:
    """A tile along one axis: it reads start..stop of the image, and keep_start..keep_stop of its output is used."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


@dataclass(frozen=True)
class Geometry:
    """The geometry of a network. Tiles begin at multiples of ``strides`` (height, width), in pixels of the image."""

    topology: Topology
    strides: tuple[int, int]

    @classmethod
    def of(cls, topology: Topology) -> Geometry:
        """Return the geometry of a network. Raises NotLocal if a layer is not local."""
        if topology.more_inputs:
            raise NotLocal("has several inputs")
        steps: dict[str, tuple[Fraction, Fraction]] = {topology.input: (Fraction(1), Fraction(1))}
        for layer in topology.layers:
            before = steps[layer.inputs[0]]
            if any(steps[value] != before for value in layer.inputs):
                raise NotLocal(f"layer {layer.name!r} joins values of different resolutions")
            factor = _factor(layer)
            steps.update(dict.fromkeys(layer.outputs, (before[0] * factor[0], before[1] * factor[1])))
        height, width = (_common_multiple([step[axis] for step in steps.values()]) for axis in range(2))
        return cls(topology, (height, width))

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the output for an image of this size. Raises ModelError if a layer cannot take its input."""
        shape = self._shapes(height, width)[self.topology.outputs[0]]
        return shape[-2], shape[-1]

    def keeps(self, height: int, width: int) -> bool:
        """Return whether the output has the same size as the image."""
        try:
            return self.output_size(height, width) == (height, width)
        except ModelError:
            return False

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the smallest size, at least this one, that the network preserves. Raises ModelError if there is none."""
        if self.keeps(height, width):
            return height, width
        size = (
            math.ceil(height / self.strides[0]) * self.strides[0],
            math.ceil(width / self.strides[1]) * self.strides[1],
        )
        if not self.keeps(*size):
            raise ModelError(f"{self.topology.source}: preserves the size of no image of about {width}x{height} pixels")
        return size

    def tiles(self, height: int, width: int, side: int) -> Iterator[tuple[Cut, Cut]]:
        """Yield tiles (rows, columns) of at most ``side`` pixels that together give the output of the whole image.

        Raises SettingsError if ``side`` is too small.
        """
        sides = [
            total if total <= side else side // stride * stride
            for total, stride in zip((height, width), self.strides, strict=True)
        ]
        if min(sides) < 1:
            raise SettingsError(f"{setting('tile', side)}: must be at least {max(self.strides)}, this network's stride")
        clean = self._clean(sides[0], sides[1], (height, width))
        rows, columns = (
            list(_cuts(total, sides[axis], self.strides[axis], clean[axis], side))
            for axis, total in enumerate((height, width))
        )
        for row in rows:
            for column in columns:
                yield row, column

    def _shapes(self, height: int, width: int) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {self.topology.input: (self.topology.input_shape[0], height, width)}
        for layer in self.topology.layers:
            try:
                made, _, _ = infer(layer.type, layer.parameters, [shapes[value] for value in layer.inputs])
            except ShapeError as error:
                raise ModelError(
                    f"{self.topology.source}: cannot take an image of {width}x{height} pixels: layer {layer.name!r} {error}"
                ) from error
            shapes.update(zip(layer.outputs, made, strict=True))
        return shapes

    def _clean(self, height: int, width: int, whole: tuple[int, int]) -> tuple[Span, Span]:
        """Return the span of an inner tile's output, along each axis, that does not depend on the tile's borders."""
        shapes, whole_shapes = self._shapes(height, width), self._shapes(*whole)
        spans: dict[str, list[Span]] = {self.topology.input: [(0, height - 1), (0, width - 1)]}
        for layer in self.topology.layers:
            before = [
                (
                    max(spans[value][axis][0] for value in layer.inputs),
                    min(spans[value][axis][1] for value in layer.inputs),
                )
                for axis in range(2)
            ]
            inputs = [shapes[value] for value in layer.inputs]
            if _offsets(layer, inputs) != _offsets(layer, [whole_shapes[value] for value in layer.inputs]):
                raise NotLocal(f"layer {layer.name!r} pads or crops by the image's size")
            made = [_clean_span(layer, axis, span, inputs) for axis, span in enumerate(before)]
            spans.update(dict.fromkeys(layer.outputs, made))
        rows, columns = spans[self.topology.outputs[0]]
        return rows, columns


def _factor(layer: Layer) -> tuple[Fraction, Fraction]:
    """Return the stride of a layer along each axis; below 1 for upsampling. Raises NotLocal."""
    p, row = layer.parameters, VOCABULARY.get(layer.type)
    reach = row.reach if row else "image"
    if reach in ("window", "transposed"):
        height, width = map(Fraction, p.get("strides", (1, 1)))
        return (height, width) if reach == "window" else (1 / height, 1 / width)
    if reach == "scaled" and p.get("scales") and p.get("coordinates") != "align_corners":
        height, width = p["scales"]
        if height == int(height) and width == int(width):
            return Fraction(1, int(height)), Fraction(1, int(width))
    local = reach in ("pixel", "nearby") or (reach == "axes" and p.get("axis", p.get("axes")) in CHANNELS)
    if not local or any(len(shape) != 3 for shape in layer.shapes):
        raise NotLocal(f"layer {layer.name!r} ({layer.type}) depends on more than a window of fixed size")
    return Fraction(1), Fraction(1)


def _common_multiple(steps: list[Fraction]) -> int:
    """Return the least common multiple of the steps, in whole pixels."""
    return math.lcm(*(step.numerator for step in steps)) // math.gcd(*(step.denominator for step in steps))


def _offsets(layer: Layer, inputs: list[Shape]) -> Any:
    """Return what a layer pads or cuts off at the top and left, for these input shapes."""
    if layer.type in WINDOWS | TRANSPOSED:
        size = inputs[0][1:]
        if layer.type in TRANSPOSED and layer.parameters.get("auto_pad") == "SAME_UPPER":
            # the padding of the convolution of which it is the transpose, whose input is this layer's output
            size = tuple(n * s for n, s in zip(size, layer.parameters.get("strides", (1, 1)), strict=True))
        return window_pads(layer.parameters, size)[:2]
    if layer.type == "Pad":
        return list(layer.parameters["pads"][:2])
    if layer.type == "Crop":
        bounds: Mapping[str, list[int]] = crop_bounds(layer.parameters, inputs)
        starts = dict(zip(bounds["axes"], bounds["starts"], strict=True))
        return [starts.get(2, 0), starts.get(3, 0)]
    return [0, 0]


def _clean_span(layer: Layer, axis: int, span: Span, inputs: list[Shape]) -> Span:
    """Return the span of a layer's output along an axis that depends only on ``span`` of its input."""
    (low, high), p, offset = span, layer.parameters, _offsets(layer, inputs)[axis]
    if layer.type in WINDOWS | TRANSPOSED:
        stride = p.get("strides", (1, 1))[axis]
        reach = (p["kernel_shape"][axis] - 1) * p.get("dilations", (1, 1))[axis]
        if layer.type in TRANSPOSED:  # output j reads (j + offset - reach) / stride to (j + offset) / stride
            return stride * (low - 1) + 1 + reach - offset, stride * (high + 1) - 1 - offset
        # output i reads stride * i - offset to stride * i - offset + reach
        return -((-low - offset) // stride), (high + offset - reach) // stride
    if layer.type == "Pad":
        return low + offset, high + offset
    if layer.type == "Crop":
        return low - offset, high - offset
    if layer.type == "LRN" and p.get("within_channel"):
        return low + p["size"] // 2, high - p["size"] // 2
    if layer.type == "Resize":
        scale = int(p["scales"][axis])
        around = 0 if (p.get("mode"), p.get("coordinates")) == ("nearest", "asymmetric") else 1
        return (low + around) * scale, (high + 1 - around) * scale - 1
    return span


def _cuts(total: int, side: int, stride: int, clean: Span, asked: int) -> Iterator[Cut]:
    """Yield tiles of ``side`` pixels along an axis of ``total`` pixels.

    The last one is moved back to end at the border; it is smaller if ``total`` is no multiple of the stride.
    """
    if side == total:
        yield Cut(0, total, 0, total)
        return
    low, high = clean
    last = math.ceil((total - side) / stride) * stride
    start = end = 0
    while start + side < total:
        stop = start + high + 1
        following = (stop - low) // stride * stride
        if following <= start:
            least = math.ceil((side - (high + 1 - low) + stride) / stride) * stride
            raise SettingsError(
                f"{setting('tile', asked)}: must be at least {least}, for the receptive field of this network"
            )
        yield Cut(start, start + side, end, stop)
        start, end = min(following, last), stop
    yield Cut(start, total, end, total)
