"""Express poolings for frameworks that pad opposite sides equally and have another rounding of sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from multiseg.topology.layer import Layer, Shape
from multiseg.topology.vocabulary import ShapeError, canonical_form, infer, window_pads
from multiseg.topology.writing import Refused, parameter


@dataclass(frozen=True)
class Pooling:
    """A MaxPool or AveragePool over an image of shape ``input_shape`` (C, H, W); pairs are (height, width).

    ``pads`` are [top, left, bottom, right], for padding SAME (``same``) resolved for this size; ``up``: whether the output size
    is rounded up; ``counted``: whether padding counts in an average.
    """

    layer: Layer
    input_shape: Shape
    average: bool
    kernel: Shape
    strides: Shape
    dilations: Shape
    pads: list[int]
    up: bool
    counted: bool
    same: bool

    @property
    def reach(self) -> Shape:
        """Extent of a window in pixels (height, width), including dilation."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def fixed(self) -> bool:
        """Whether the padding depends on the size of the image."""
        return self.same and max(self.strides) > 1

    def alike(self, **parameters: Any) -> bool:
        """Return whether the layer with these parameters is equal at this size: in windows and in the divisors of averages."""
        own = {key: value for key, value in self.layer.parameters.items() if key != "auto_pad"}
        try:
            shapes, _, _ = infer(self.layer.type, own | parameters, [self.input_shape])
        except ShapeError:
            return False
        other = replace(self.layer, parameters=own | parameters, shapes=tuple(shapes))
        return other.shapes == self.layer.shapes and canonical_form(other, [self.input_shape]) == canonical_form(
            self.layer, [self.input_shape]
        )

    def rounded(self, counts_padding: bool = True) -> tuple[bool, bool] | None:
        """Return how a framework that pads opposite sides equally expresses the layer, None if it cannot.

        The result is whether the size is rounded up, and whether this is right for images of any size. ``counts_padding``:
        whether the framework's averages count padding.
        """
        top, left, bottom, right = self.pads
        for up in (True, False) if self.up or self.same else (False, True):
            counted = {"count_include_pad": counts_padding} if self.average else {}
            if self.alike(pads=[top, left, top, left], ceil_mode=up, **counted):
                uncounted = self.average and any(self.pads) and counts_padding != self.counted
                return up, up == self.up and (top, left) == (bottom, right) and not self.fixed and not uncounted
        return None

    def rounded_apart(self) -> tuple[bool, bool] | None:
        """Return the same as :meth:`rounded` for a framework that pads the image in a separate layer before."""
        channels, height, width = self.input_shape
        top, left, bottom, right = self.pads
        padded = (channels, height + top + bottom, width + left + right)
        parameters = {"kernel_shape": self.kernel, "strides": self.strides, "dilations": self.dilations}
        for up in (self.up, not self.up):
            try:
                shapes, _, _ = infer(self.layer.type, {**parameters, "ceil_mode": up}, [padded])
            except ShapeError:
                continue
            if tuple(shapes) == self.layer.shapes:
                return up, up == self.up and not self.fixed
        return None


def pooling(layer: Layer, input_shape: Shape) -> Pooling:
    """Return the description of a pooling layer. Raises Refused if one of its windows lies entirely outside the image."""
    described = Pooling(
        layer=layer,
        input_shape=input_shape,
        average=layer.type == "AveragePool",
        kernel=tuple(layer.parameters["kernel_shape"]),
        strides=tuple(parameter(layer, "strides")),
        dilations=tuple(parameter(layer, "dilations")),
        pads=window_pads(layer.parameters, input_shape[1:]),
        up=bool(parameter(layer, "ceil_mode")),
        counted=layer.type == "AveragePool" and bool(parameter(layer, "count_include_pad")),
        same=layer.parameters.get("auto_pad") == "SAME_UPPER",
    )
    for i in range(2):
        last = (layer.shapes[0][i + 1] - 1) * described.strides[i] - described.pads[i]
        if described.reach[i] <= described.pads[i] or last >= input_shape[i + 1]:
            raise Refused("has a window that lies outside the image")
    return described
