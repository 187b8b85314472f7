"""Batch normalisation, as one operation or as the arithmetic that it is, and local response normalisation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from multiseg_tensorflow.describing.rules.convolution import fits
from multiseg_tensorflow.describing.walk import RESHAPED, Value, Walk, Weighted
from multiseg_tensorflow.tensors import number
from multiseg_tensorflow.weights import vector as vector_weight

HALF = "Normalise"  # what a multiplication by a factor of batch normalisation is until the addition that follows


def batch_norm(walk: Walk, op: Any) -> list[Value] | None:
    value = walk.value(op.inputs[0])
    if value is None or not fits(value, op):
        return None
    found = [walk.weight(tensor) for tensor in op.inputs[1:5]]
    if any(each is None for each in found):
        return None
    made = _normalisation(walk, op, value, number(op.get_attr("epsilon")), *found)
    return [*made, *([replace(made[0], layout=None)] * (len(op.outputs) - 1))]


def _normalisation(
    walk: Walk, op: Any, value: Value, epsilon: float, scale: Any, offset: Any, mean: Any, variance: Any
) -> list[Value]:
    """A batch normalisation; each of its four is a variable, a constant, or None where there is none."""

    def idle(found: Any, neutral: float) -> bool:
        return found is None or (found[0] is None and bool(np.all(found[1] == neutral)))

    named = {"weight": None if idle(scale, 1) else scale, "bias": None if idle(offset, 0) else offset}
    affine: bool | str = all(named.values()) or next((part for part, found in named.items() if found), False)
    found = {**named, "running_mean": mean, "running_var": variance}
    weights = {part: Weighted(each[0], vector_weight) for part, each in found.items() if each is not None}
    return walk.add(op, "BatchNormalization", [value], {"epsilon": epsilon, "affine": affine}, weights=weights)


def unfused(walk: Walk, op: Any, value: Value, tensor: Any, other: Any) -> list[Value] | None:
    """x * factor, then + (offset - mean * factor), where factor = 1 / sqrt(variance + epsilon) * scale."""
    if op.type == "Mul":
        factor = _factor(walk, other)
        if factor is None:
            return None
        variance, epsilon, scale = factor
        made = _normalisation(walk, op, value, epsilon, scale, None, None, variance)
        made[0].node.type = HALF  # until the addition
        return made
    node = value.node
    if node.type != HALF or not walk.alone(tensor):
        return None
    source = other.op
    while source.type in ("Identity", *RESHAPED):
        source = source.inputs[0].op
    offset = walk.weight(source.inputs[0]) if source.type == "Sub" else None
    product = source.inputs[1].op if source.type == "Sub" else source.inputs[0].op if source.type == "Neg" else source
    if product.type != "Mul" or (source.type == "Sub" and offset is None):
        return None
    factors = [each.op.inputs[0] if each.op.type == "Neg" else each for each in product.inputs]  # -mean * factor
    mean = next((found for found in map(walk.weight, factors) if found is not None), None)
    if mean is None:
        return None
    walk.nodes.remove(node)
    variance, scale = node.weights["running_var"], node.weights.get("weight")
    return _normalisation(
        walk, op, node.inputs[0], node.parameters["epsilon"], scale and (scale.variable, None), offset, mean,
        (variance.variable, None),
    )  # fmt: skip


def _factor(walk: Walk, tensor: Any) -> tuple[Any, float, Any] | None:
    """variance, epsilon and scale (or None) of 1 / sqrt(variance + epsilon) * scale."""
    op, scale = tensor.op, None
    while op.type in ("Identity", *RESHAPED):
        op = op.inputs[0].op
    if op.type == "Mul":
        sides = [(op.inputs[0].op, op.inputs[1]), (op.inputs[1].op, op.inputs[0])]
        root, other = next(((a, b) for a, b in sides if a.type == "Rsqrt"), (None, None))
        scale = None if other is None else walk.weight(other)
        if root is None or scale is None:
            return None
        op = root
    if op.type != "Rsqrt" or op.inputs[0].op.type not in ("Add", "AddV2"):
        return None
    first, second = (walk.weight(each) for each in op.inputs[0].op.inputs)
    if first is None or second is None or second[0] is not None or np.size(second[1]) != 1:
        return None
    return first, number(np.ravel(second[1])[0]), scale


def lrn(walk: Walk, op: Any) -> list[Value] | None:
    value = walk.value(op.inputs[0])
    if value is None or value.layout != "NHWC":
        return None
    size = 2 * op.get_attr("depth_radius") + 1
    parameters = {
        "size": size,
        "alpha": float(f"{number(op.get_attr('alpha')) * size:.7g}"),  # TensorFlow's is for each of the channels
        "beta": number(op.get_attr("beta")),
        "bias": number(op.get_attr("bias")),
    }
    return walk.add(op, "LRN", [value], parameters)
