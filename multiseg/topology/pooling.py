"""Poolings for frameworks that say them otherwise: by padding opposite sides alike, and by which way they round."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from multiseg.topology.layer import Layer, Shape
from multiseg.topology.vocabulary import ShapeError, canonical_form, infer, window_pads
from multiseg.topology.writing import Refused, said


@dataclass(frozen=True)
class Pooling:
    """A MaxPool or AveragePool over an image of shape ``taken``; pairs are (height, width).

    ``pads`` are [top, left, bottom, right], resolved for this size where ``same`` says that it has SAME's; ``up`` is whether
    it rounds up, ``counted`` whether padding counts in an average.
    """

    layer: Layer
    taken: Shape
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
        """From the first to the last pixel of a window."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def fixed(self) -> bool:
        """Whether its padding depends on the image's size."""
        return self.same and max(self.strides) > 1

    def alike(self, **parameters: Any) -> bool:
        """Whether with these parameters instead it is the same at this size: windows, and what averages divide by."""
        instead = {key: value for key, value in self.layer.parameters.items() if key != "auto_pad"}
        try:
            shapes, _, _ = infer(self.layer.type, instead | parameters, [self.taken])
        except ShapeError:
            return False
        other = replace(self.layer, parameters=instead | parameters, shapes=tuple(shapes))
        return other.shapes == self.layer.shapes and canonical_form(other, [self.taken]) == canonical_form(
            self.layer, [self.taken]
        )

    def rounded(self, counts_padding: bool = True) -> tuple[bool, bool] | None:
        """How a framework that pads opposite sides alike says it: whether it rounds up, and whether that is right for images
        of any size. None where it cannot. ``counts_padding``: whether its averages do."""
        top, left, bottom, right = self.pads
        for up in (True, False) if self.up or self.same else (False, True):
            counted = {"count_include_pad": counts_padding} if self.average else {}
            if self.alike(pads=[top, left, top, left], ceil_mode=up, **counted):
                uncounted = self.average and any(self.pads) and counts_padding != self.counted
                return up, up == self.up and (top, left) == (bottom, right) and not self.fixed and not uncounted
        return None

    def rounded_apart(self) -> tuple[bool, bool] | None:
        """The same for a framework that pads the image beforehand, in a layer of its own."""
        channels, height, width = self.taken
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


def pooling(layer: Layer, taken: Shape) -> Pooling:
    """A pooling layer. Raises Refused where one of its windows lies wholly outside the image."""
    found = Pooling(
        layer=layer,
        taken=taken,
        average=layer.type == "AveragePool",
        kernel=tuple(layer.parameters["kernel_shape"]),
        strides=tuple(said(layer, "strides")),
        dilations=tuple(said(layer, "dilations")),
        pads=window_pads(layer.parameters, taken[1:]),
        up=bool(said(layer, "ceil_mode")),
        counted=layer.type == "AveragePool" and bool(said(layer, "count_include_pad")),
        same=layer.parameters.get("auto_pad") == "SAME_UPPER",
    )
    for i in range(2):
        last = (layer.shapes[0][i + 1] - 1) * found.strides[i] - found.pads[i]
        if found.reach[i] <= found.pads[i] or last >= taken[i + 1]:
            raise Refused("has a window that lies outside the image")
    return found
