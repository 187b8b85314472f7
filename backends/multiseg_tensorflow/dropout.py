"""Find dropout in a training graph: TensorFlow has no dropout operation, it composes it of random numbers and a mask."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg.network import Array
from multiseg_tensorflow import digits
from multiseg_tensorflow.tensors import constant, number

RANDOM = ("RandomUniform", "StatelessRandomUniformV2")
MASKS = ("GreaterEqual", "Floor")
SCALES = ("Mul", "RealDiv", "Div")


@dataclass(frozen=True)
class Dropout:
    """Dropout of the tensor ``source``, with the probability ``ratio``; ``result`` is its last operation."""

    source: Any
    result: Any
    name: str
    ratio: float
    channelwise: bool = False  # one random number for each channel

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of a Dropout layer."""
        return {"ratio": self.ratio, **({"channelwise": True} if self.channelwise else {})}

    def ones(self, count: int) -> dict[Any, Array]:
        """Return what to feed so that ``result`` is what dropout multiplies ``count`` images or vectors by."""
        return {self.source: np.ones([count, *self.source.shape.as_list()[1:]], np.float32)}


def find(graph: Any) -> list[Dropout]:
    """Return every dropout in a graph, including those with ratio 0."""
    dropouts = []
    for op in graph.get_operations():
        if op.type in RANDOM:
            mask = _mask(op)
            ratio = None if mask is None else _ratio(mask)
            ends = None if mask is None else _ends(mask)
            if ends is not None and ratio is not None:
                scope = re.sub(r"/(stateless_)?random_uniform\b.*", "", op.name)
                inner = re.sub(
                    r"/(stateless_)?dropout(_\d+)?$", "", scope
                )  # TensorFlow's scope within the user's scope
                dropouts.append(
                    Dropout(
                        *ends,
                        scope if inner in ("", digits.GraphKeys.MODEL) else inner,
                        ratio,
                        _is_channelwise(mask, ends[0]),
                    )
                )
    return dropouts


def named(nodes: Iterable[Any], dropouts: Iterable[Dropout]) -> dict[str, Dropout] | None:
    """Return the dropouts of a training graph by the names of the layers that describe them, which are among ``nodes``.

    None if they cannot be paired, or if a shape is not known.
    """
    pairs: dict[str, Dropout] = {}
    by_result = {each.result.name: each for each in dropouts if 0 < each.ratio < 1}
    for node in nodes:
        if node.type == "Dropout":
            dropout = by_result.get(node.op.name)
            if dropout is None or None in dropout.source.shape.as_list()[1:]:
                return None
            pairs[node.name] = dropout
    return pairs if len(pairs) == len(by_result) else None


def _is_channelwise(mask: Any, source: Any) -> bool:
    """Return whether a mask has one value for each image and channel of ``source`` (N, H, W, C)."""
    if mask.outputs[0].shape.rank != 4 or source.shape.rank != 4:
        return False
    drawn, shape = mask.outputs[0].shape.as_list(), source.shape.as_list()
    return bool(drawn[1:3] == [1, 1] and drawn[3] == shape[3] and shape[1:3] != [1, 1])


def _mask(op: Any) -> Any:
    """Return the operation that thresholds random numbers to 0 and 1, or false and true; None if there is none."""
    for _ in range(4):  # after scaling and shifting them to their interval
        users = op.outputs[0].consumers() if op.outputs else []
        if len(users) != 1:
            return None
        op = users[0]
        if op.type in MASKS:
            return op
    return None


def _ratio(mask: Any) -> float | None:
    """Return the ratio in random >= ratio, or floor(random + (1 - ratio)); None if it is not constant."""
    if mask.type == "GreaterEqual":
        value = constant(mask.inputs[1])
        return None if value is None else number(value)
    for tensor in mask.inputs[0].op.inputs:
        value = constant(tensor)
        if value is not None and np.size(value) == 1:
            return number(np.float32(1) - np.float32(value))
    return None


def _ends(mask: Any) -> tuple[Any, Any] | None:
    """Return the tensor that dropout is applied to, and the operation that multiplies or selects its scaled copy by the mask."""
    users = mask.outputs[0].consumers()
    while len(users) == 1 and users[0].type == "Cast":
        users = users[0].outputs[0].consumers()
    for user in users:
        if user.type in ("SelectV2", "Select", "Mul"):
            others = [tensor for tensor in user.inputs if constant(tensor) is None and tensor.op.type in SCALES]
            for tensor in others:
                sources = [source for source in tensor.op.inputs if constant(source) is None]
                if len(sources) == 1:
                    return sources[0], user
    return None
