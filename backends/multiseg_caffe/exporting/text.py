"""Write fields of a prototxt as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from multiseg.topology import Layer
from multiseg.topology.writing import (
    number,
    parameter,
)  # fmt: skip

Fields = Sequence[tuple[str, Any]]  # names and values: a str is quoted, a Word is not, a list of fields is a message


class Word(str):
    """Text that is written without quotes: a value of an enum, such as MAX, or a formatted number."""


PLAIN = {
    "Relu": "ReLU", "Sigmoid": "Sigmoid", "Tanh": "TanH", "Softplus": "BNLL", "Abs": "AbsVal", "Exp": "Exp", "Log": "Log",
    "Identity": "Power",
}  # fmt: skip


def windows(layer: Layer, pads: Sequence[int]) -> list[tuple[str, Any]]:
    """Return the fields of a ConvolutionParameter; ``pads`` are above, left, below, right."""
    strides, dilations, groups = (parameter(layer, key) for key in ("strides", "dilations", "group"))
    if dilations[0] != dilations[1]:
        dilation: list[tuple[str, Any]] = [("dilation", value) for value in dilations]
    else:
        dilation = [("dilation", dilations[0])] if dilations[0] > 1 else []
    return [
        ("num_output", layer.parameters["num_output"]),
        *pair("kernel", layer.parameters["kernel_shape"], "kernel_size"),
        *(pair("stride", strides) if max(strides) > 1 else []),
        *(pair("pad", pads[:2]) if any(pads[:2]) else []),
        *dilation,
        *([("group", groups)] if groups != 1 else []),
        *fillers(layer),
    ]


def fillers(layer: Layer) -> list[tuple[str, Any]]:
    """Return fields for the bias and a random initialization of weights (Caffe's default is 0)."""
    bias = [] if parameter(layer, "bias_term") else [("bias_term", False)]
    return [*bias, ("weight_filler", [("type", layer.initial or "xavier")])]


def fixed(layer: Layer) -> list[tuple[str, Any]]:
    """Return the fields that keep a layer's weights as they are in training; none for a layer that is trained."""
    return [("param", [("lr_mult", 0)]) for _ in layer.weights] if layer.frozen else []


def pair(name: str, values: Sequence[int], square: str = "") -> list[tuple[str, Any]]:
    """Return the fields of a size (height, width): one (``square``, by default ``name``) if both are equal."""
    height, width = values
    return [(square or name, height)] if height == width else [(f"{name}_h", height), (f"{name}_w", width)]


def number_field(value: float | None, otherwise: str = "") -> Word:
    """Return a number as text, ``otherwise`` for None."""
    return Word(otherwise if value is None else number(value).removesuffix(".0"))


def sides(pads: Sequence[int]) -> str:
    """Return padding as text for messages."""
    return "{} above, {} left, {} below, {} right".format(*pads)


def indented(fields: Fields, depth: int = 1) -> list[str]:
    """Return the lines of fields, indented by ``depth`` levels; short messages are on one line."""
    lines = []
    for name, value in fields:
        if isinstance(value, (list, tuple)):
            inner = indented(value, depth + 1)
            one_line = f"{'  ' * depth}{name} {{ {' '.join(line.strip() for line in inner)} }}"
            fits = len(inner) == len(value) and len(one_line) <= 60
            lines += [one_line] if fits else [f"{'  ' * depth}{name} {{", *inner, f"{'  ' * depth}}}"]
        elif isinstance(value, bool):
            lines.append(f"{'  ' * depth}{name}: {'true' if value else 'false'}")
        else:
            text = (
                json.dumps(value, ensure_ascii=False)
                if isinstance(value, str) and not isinstance(value, Word)
                else value
            )
            lines.append(f"{'  ' * depth}{name}: {text}")
    return lines
