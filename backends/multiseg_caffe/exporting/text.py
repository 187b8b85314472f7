"""Fields of a prototxt as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from multiseg.topology import Layer
from multiseg.topology.writing import (
    number,
    said,
)  # fmt: skip

Fields = Sequence[tuple[str, Any]]  # names and values; text is quoted, a Word is not, a list of fields is a message


class Word(str):
    """A name of Caffe's, such as MAX, or a number as it is to be written."""


PLAIN = {
    "Relu": "ReLU", "Sigmoid": "Sigmoid", "Tanh": "TanH", "Softplus": "BNLL", "Abs": "AbsVal", "Exp": "Exp", "Log": "Log",
    "Identity": "Power",
}  # fmt: skip


def windows(layer: Layer, pads: Sequence[int]) -> list[tuple[str, Any]]:
    """Fields of a ConvolutionParameter."""
    strides, dilations, groups = (said(layer, key) for key in ("strides", "dilations", "group"))
    if dilations[0] != dilations[1]:
        dilation: list[tuple[str, Any]] = [("dilation", each) for each in dilations]
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
    """Weights that start at random: Caffe's own default is 0."""
    bias = [] if said(layer, "bias_term") else [("bias_term", False)]
    return [*bias, ("weight_filler", [("type", "xavier")])]


def pair(name: str, values: Sequence[int], square: str = "") -> list[tuple[str, Any]]:
    high, wide = values
    return [(square or name, high)] if high == wide else [(f"{name}_h", high), (f"{name}_w", wide)]


def number_field(value: float | None, otherwise: str = "") -> Word:
    return Word(otherwise if value is None else number(value).removesuffix(".0"))


def sides(pads: Sequence[int]) -> str:
    return "{} above, {} left, {} below, {} right".format(*pads)


def indented(fields: Fields, depth: int = 1) -> list[str]:
    lines = []
    for name, value in fields:
        if isinstance(value, (list, tuple)):
            inner = indented(value, depth + 1)
            short = f"{'  ' * depth}{name} {{ {' '.join(line.strip() for line in inner)} }}"
            plain = len(inner) == len(value) and len(short) <= 60
            lines += [short] if plain else [f"{'  ' * depth}{name} {{", *inner, f"{'  ' * depth}}}"]
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
