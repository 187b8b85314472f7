"""A layer of the neutral description of a network, independent of the framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One layer. Types and parameters are those of ONNX operators; see multiseg.topology.vocabulary.

    - ``inputs`` and ``outputs`` name values: most layers have one output, named like the layer.
    - ``shapes``: of the outputs, without the batch: (C, H, W), or (features,).
    - ``weights``: shapes of its parameters by their part (``weight``, ``bias``, ...) in neutral layout, OIHW and IOHW; the
      neutral weights of the network are called ``name.part``.
    - ``multiply_adds``: for one image.
    - ``frozen``: whether the file states that training does not change its weights.
    - ``initial``: ``bilinear`` if its weights start as the kernel of bilinear upsampling, in every channel; None if unknown.
    - ``reason``: what keeps a layer out of the vocabulary, such as an option; None if unknown, and for types of the vocabulary.

    The last three are no part of the comparison of networks.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    shapes: tuple[Shape, ...] = ()
    weights: Mapping[str, Shape] = field(default_factory=dict)
    multiply_adds: int = 0
    frozen: bool = False
    initial: str | None = None
    reason: str | None = None
