"""The columns of the vocabulary: what the core knows of a layer type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Optional

from multiseg.topology.layer import Layer, Shape
from multiseg.topology.vocabulary.canonical_forms import CanonicalForm, comparable
from multiseg.topology.vocabulary.shapes import Inferred, ShapeError, same_shape

Parameters = Mapping[str, Any]
REQUIRED = "(required)"  # default of a parameter that a description must have
OPTIONAL = None  # default of a parameter that may be absent

# How drawings colour a layer; layers of the last three share the box of the layer before them.
Category = Literal[
    "convolution", "upsampling", "pooling", "joining", "shaping", "activation", "softmax", "normalisation"
]
# What an output pixel depends on: "pixel" the same one; "window" a window that moves by strides, "transposed" the reverse
# of that; "nearby" pixels at a fixed distance; "scaled" like nearby, at another resolution; "axes" the same pixel where
# `axis` or `axes` is the channels alone; "image" possibly the whole image.
Reach = Literal["pixel", "window", "transposed", "nearby", "scaled", "axes", "image"]
# How output channels follow from input channels: "same" each from its own; "mixed" by weights, each from all of its group;
# "axes" like same where `axis` or `axes` is not the channels; "neighbours" from those beside it; "permuted", "reshaped".
Channels = Literal["same", "mixed", "axes", "neighbours", "permuted", "reshaped"]


@dataclass(frozen=True)
class LayerType:
    """One row of the vocabulary.

    - ``parameters``: default by name, REQUIRED or OPTIONAL; ``words``: the type's own words for some.
    - ``shapes``: rule from parameters and input shapes to output shapes, weights and multiply-adds.
    - ``canonical``: rule for the canonical form; None where that is the type with its parameters.
    - ``alternatives``: values of a parameter that other frameworks have as default, which parity tries as explanations.
    - ``commutative``: the order of its inputs does not matter. ``stochastic``: draws random numbers in training.
    - ``batch_statistics``: normalises by the batch's statistics in training. ``kinked``: its slope jumps where its input is 0.
    - ``keeps_values``: in prediction the output has the input's values in the same order.
    """

    category: Category
    shapes: Callable[[Parameters, list[Shape]], Inferred] = same_shape
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reach: Reach = "image"
    channels: Channels = "same"
    canonical: Optional[Callable[[Layer, Parameters, list[Shape]], CanonicalForm]] = None  # noqa: UP045 - Python 3.9
    words: Mapping[str, str] = field(default_factory=dict)
    alternatives: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    commutative: bool = False
    stochastic: bool = False
    batch_statistics: bool = False
    kinked: bool = False
    keeps_values: bool = False

    @property
    def compact(self) -> bool:
        """Whether drawings put it into the box of the layer before it; Caffe computes most of these in place."""
        return self.category in ("activation", "softmax", "normalisation")

    def complete(self, parameters: Parameters) -> dict[str, Any]:
        """Return the parameters with defaults filled in; optional ones stay absent."""
        defaults = {key: value for key, value in self.parameters.items() if value not in (REQUIRED, OPTIONAL)}
        return {**defaults, **parameters}

    def infer(self, parameters: Parameters, inputs: list[Shape]) -> Inferred:
        """Return output shapes, weights and multiply-adds. Raises ShapeError."""
        if not inputs:
            raise ShapeError("has no input")
        return self.shapes(self.complete(parameters), inputs)

    def canonical_form(self, layer: Layer, inputs: list[Shape]) -> CanonicalForm:
        """Return type and parameters of a layer of this type in canonical form, for these input shapes."""
        parameters = self.complete(layer.parameters)
        if self.canonical is not None:
            return self.canonical(layer, parameters, inputs)
        return layer.type, {key: comparable(parameters.get(key)) for key in self.parameters}
