"""Convert batch normalisation, fused or written as arithmetic, and local response normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from multiseg_tensorflow.describing.rules.convolution import has_data_format
from multiseg_tensorflow.describing.walk import RESHAPED, Value, VariableRef, Walk
from multiseg_tensorflow.tensors import constant, live_input, number
from multiseg_tensorflow.weights import vector as vector_weight

HALF = "Normalise"  # layer type of the multiplication of an unfused batch normalisation until its addition is visited


def batch_norm(walk: Walk, op: Any) -> list[Value] | None:
    """Convert a fused batch normalisation."""
    value = walk.value(op.inputs[0])
    if value is None or not has_data_format(value, op):
        return None
    scale, offset = (walk.weight(tensor) for tensor in op.inputs[1:3])
    if op.get_attr("is_training"):  # by the statistics of the batch, which moving averages may store
        mean, variance = (_average(walk, tensor) for tensor in op.outputs[1:3])
        by_batch = {"prediction_statistics": "batch", **({} if mean and variance else {"stored": False})}
        mean, variance = (mean, variance) if mean and variance else (None, None)
    else:
        mean, variance = (walk.weight(tensor) for tensor in op.inputs[3:5])
        by_batch = {}
        if mean is None or variance is None:
            return None
    if scale is None or offset is None:
        return None
    outputs = _normalisation(walk, op, value, number(op.get_attr("epsilon")), scale, offset, mean, variance)
    outputs[0].node.parameters.update(by_batch)
    return [*outputs, *([replace(outputs[0], layout=None)] * (len(op.outputs) - 1))]


def _average(walk: Walk, tensor: Any) -> Any:
    """Return the variable that stores a moving average of a tensor, in the form of Walk.weight; None if there is none."""
    waiting, visited = [tensor], 0
    while waiting and visited < 20:
        source = waiting.pop(0)
        for op in source.consumers():
            visited += 1
            if op.type == "Sub":  # variable -= (variable - value) * (1 - decay)
                others = [other for other in op.inputs if other is not source]
                weight = walk.weight(others[0]) if len(others) == 1 else None
                if weight is not None and weight[0] is not None:
                    return weight
            elif op.type in ("Identity", "Mul", *RESHAPED):  # Mul: the unbiased variance
                waiting += op.outputs
    return None


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


def by_moments(walk: Walk, op: Any) -> list[Value] | None:
    """Convert tf.nn.batch_normalization by tf.nn.moments of its batch: x * factor + (offset - mean * factor)."""
    for product, shift in (tuple(op.inputs), tuple(reversed(op.inputs))):
        product_op, shift_op = _source(product), _source(shift)
        if product_op.type != "Mul" or shift_op.type not in ("Sub", "Neg", "Mul"):
            continue
        for x, factor in (tuple(product_op.inputs), tuple(reversed(product_op.inputs))):
            value, x = walk.value(x), _passed(x)
            parts = None if value is None else _moments(walk, x, factor)
            if value is None or parts is None or value.layout not in ("NHWC", None):
                continue
            scale, variance, epsilon = parts
            offset = walk.weight(shift_op.inputs[0]) if shift_op.type == "Sub" else None
            if shift_op.type == "Sub" and offset is None:
                continue
            mean = _mean_of(x, shift)
            averages = None if mean is None else (_average(walk, mean), _average(walk, variance))
            stored = averages is not None and all(averages)
            mean_weight, variance_weight = averages if averages and stored else (None, None)
            outputs = _normalisation(walk, op, value, epsilon, scale, offset, mean_weight, variance_weight)
            outputs[0].node.parameters.update(prediction_statistics="batch", **({} if stored else {"stored": False}))
            return outputs
    return None


def _moments(walk: Walk, x: Any, factor: Any) -> tuple[Any, Any, float] | None:
    """Return scale (or None), variance and epsilon of 1 / sqrt(variance + epsilon) * scale with the variance of ``x``'s batch."""
    root, scale = _source(factor), None
    if root.type == "Mul":
        sides = [(_source(root.inputs[0]), root.inputs[1]), (_source(root.inputs[1]), root.inputs[0])]
        root, other = next(((a, b) for a, b in sides if a.type == "Rsqrt"), (root, None))
        scale = None if other is None else walk.weight(other)
        if scale is None:
            return None
    total = _source(root.inputs[0]) if root.type == "Rsqrt" else None
    if total is None or total.type not in ("Add", "AddV2"):
        return None
    epsilon = walk.weight(total.inputs[1])
    mean = _source(total.inputs[0])
    if epsilon is None or epsilon[0] is not None or np.size(epsilon[1]) != 1 or not _over_batch(mean, x):
        return None
    squares = _source(mean.inputs[0])
    if squares.type != "SquaredDifference" or all(_passed(side) is not x for side in squares.inputs):
        return None
    return scale, mean.outputs[0], number(np.ravel(epsilon[1])[0])


def _over_batch(op: Any, x: Any) -> bool:
    """Return whether an operation is the mean over all axes of ``x`` but the last."""
    axes = constant(op.inputs[1]) if op.type == "Mean" else None
    return axes is not None and sorted(np.atleast_1d(axes).tolist()) == list(range(x.shape.rank - 1))


def _mean_of(x: Any, tensor: Any) -> Any:
    """Return the mean of ``x`` over its batch among the operations that compute a tensor; None if there is none."""
    waiting = [tensor]
    while waiting:
        op = _source(waiting.pop())
        if op.type == "Mean":
            return op.outputs[0] if _passed(op.inputs[0]) is x and _over_batch(op, x) else None
        if op.type in ("Sub", "Neg", "Mul"):
            waiting += op.inputs
    return None


def _source(tensor: Any) -> Any:
    """Return the operation that computes a tensor, before identities, changes of shape and constant conditions."""
    return _passed(tensor, RESHAPED).op


def _passed(tensor: Any, types: Sequence[str] = ()) -> Any:
    """Return the tensor that identities, constant conditions and operations of ``types`` pass on."""
    while tensor.op.type in ("Identity", "StopGradient", "Switch", "Merge", *types):
        source = live_input(tensor.op) if tensor.op.type == "Merge" else tensor.op.inputs[0]
        if source is None:
            return tensor
        tensor = source
    return tensor


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
