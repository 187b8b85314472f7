"""Convert batch normalisation, fused or written as arithmetic, and local response normalisation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from multiseg_tensorflow.describing.rules.convolution import has_data_format
from multiseg_tensorflow.describing.walk import RESHAPED, Value, VariableRef, Walk
from multiseg_tensorflow.tensors import number
from multiseg_tensorflow.weights import vector as vector_weight

HALF = "Normalise"  # layer type of the multiplication of an unfused batch normalisation until its addition is visited


def batch_norm(walk: Walk, op: Any) -> list[Value] | None:
    """Convert a fused batch normalisation."""
    value = walk.value(op.inputs[0])
    if value is None or not has_data_format(value, op):
        return None
    weights = [walk.weight(tensor) for tensor in op.inputs[1:5]]
    if any(weight is None for weight in weights):
        return None
    outputs = _normalisation(walk, op, value, number(op.get_attr("epsilon")), *weights)
    return [*outputs, *([replace(outputs[0], layout=None)] * (len(op.outputs) - 1))]


def _normalisation(
    walk: Walk, op: Any, value: Value, epsilon: float, scale: Any, offset: Any, mean: Any, variance: Any
) -> list[Value]:
    """Add a batch normalisation; scale, offset, mean and variance are results of Walk.weight, or None if absent."""

    def has_no_effect(weight: Any, neutral: float) -> bool:
        return weight is None or (weight[0] is None and bool(np.all(weight[1] == neutral)))

    affine_parts = {
        "weight": None if has_no_effect(scale, 1) else scale,
        "bias": None if has_no_effect(offset, 0) else offset,
    }
    affine: bool | str = all(affine_parts.values()) or next(
        (part for part, weight in affine_parts.items() if weight), False
    )
    parts = {**affine_parts, "running_mean": mean, "running_var": variance}
    weights = {part: VariableRef(weight[0], vector_weight) for part, weight in parts.items() if weight is not None}
    return walk.add(op, "BatchNormalization", [value], {"epsilon": epsilon, "affine": affine}, weights=weights)


def unfused(walk: Walk, op: Any, value: Value, tensor: Any, other: Any) -> list[Value] | None:
    """Convert x * factor, then + (offset - mean * factor), where factor = 1 / sqrt(variance + epsilon) * scale."""
    if op.type == "Mul":
        factor = _factor(walk, other)
        if factor is None:
            return None
        variance, epsilon, scale = factor
        outputs = _normalisation(walk, op, value, epsilon, scale, None, None, variance)
        outputs[0].node.type = HALF
        return outputs
    node = value.node
    if node.type != HALF or not walk.has_single_consumer(tensor):
        return None
    source = other.op
    while source.type in ("Identity", *RESHAPED):
        source = source.inputs[0].op
    offset = walk.weight(source.inputs[0]) if source.type == "Sub" else None
    product = source.inputs[1].op if source.type == "Sub" else source.inputs[0].op if source.type == "Neg" else source
    if product.type != "Mul" or (source.type == "Sub" and offset is None):
        return None
    factors = [side.op.inputs[0] if side.op.type == "Neg" else side for side in product.inputs]  # -mean * factor
    mean = next((weight for weight in map(walk.weight, factors) if weight is not None), None)
    if mean is None:
        return None
    walk.nodes.remove(node)
    variance, scale = node.weights["running_var"], node.weights.get("weight")
    return _normalisation(
        walk, op, node.inputs[0], node.parameters["epsilon"], scale and (scale.variable, None), offset, mean,
        (variance.variable, None),
    )  # fmt: skip


def _factor(walk: Walk, tensor: Any) -> tuple[Any, float, Any] | None:
    """Return variance, epsilon and scale (or None) of 1 / sqrt(variance + epsilon) * scale; None for anything else."""
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
    first, second = (walk.weight(term) for term in op.inputs[0].op.inputs)
    if first is None or second is None or second[0] is not None or np.size(second[1]) != 1:
        return None
    return first, number(np.ravel(second[1])[0]), scale


def lrn(walk: Walk, op: Any) -> list[Value] | None:
    """Convert LRN; the neutral alpha is divided by the size of the window, TensorFlow's is not."""
    value = walk.value(op.inputs[0])
    if value is None or value.layout != "NHWC":
        return None
    size = 2 * op.get_attr("depth_radius") + 1
    parameters = {
        "size": size,
        "alpha": float(f"{number(op.get_attr('alpha')) * size:.7g}"),
        "beta": number(op.get_attr("beta")),
        "bias": number(op.get_attr("bias")),
    }
    return walk.add(op, "LRN", [value], parameters)
