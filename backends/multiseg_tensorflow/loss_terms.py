"""How a loss is normalised, read from its graph, so that the loss over several batches does not depend on their size."""

from __future__ import annotations

from typing import Any

import tensorflow

tf = tensorflow.compat.v1

Term = tuple[Any, Any]  # tensors of float64: total and count, see multiseg.network.Network.evaluate
MOST = 64  # terms; a loss of more is the mean over the images


def of(loss: Any, images: Any, batch_size: int) -> list[Term]:
    """Return the terms of a scalar loss; ``images`` is the tensor of the number of images.

    Sums, differences and multiples of means and of quotients are taken apart. A sum over the batch has the count
    images / batch_size. Everything else is the mean over the images.
    """
    parts = _parts(loss, 1.0)
    if len(parts) > MOST:
        parts = [(loss, 1.0, None)]
    images = tf.cast(images, tf.float64)
    terms = []
    for value, factor, count in parts:
        value = factor * tf.cast(value, tf.float64)
        if count is _SUM:
            terms.append((value, images / batch_size))
            continue
        count = images if count is None else tf.cast(count, tf.float64)
        terms.append(
            (tf.where(count > 0, value * count, tf.zeros_like(value)), count)
        )  # the mean of nothing is not a number
    return terms


_SUM = "sum"


def _parts(value: Any, factor: Any) -> list[tuple[Any, Any, Any]]:
    """Return values with their factors and counts: a tensor, _SUM, or None if it is unknown."""
    op = value.op
    if op.type in ("Identity", "Cast", "Reshape", "Squeeze", "StopGradient"):
        return _parts(op.inputs[0], factor) if op.inputs[0].shape.rank == 0 else [(value, factor, None)]
    if op.type in ("Add", "AddV2", "AddN"):
        return [part for term in op.inputs for part in _parts(term, factor)]
    if op.type == "Sub":
        return [*_parts(op.inputs[0], factor), *_parts(op.inputs[1], -factor)]
    if op.type == "Neg":
        return _parts(op.inputs[0], -factor)
    if op.type == "Mul":
        for number, term in (op.inputs, reversed(op.inputs)):
            if number.shape.rank == 0 and not _depends_on_images(number.op):
                return _parts(term, factor * tf.cast(number, tf.float64))
    if op.type in ("RealDiv", "Div", "DivNoNan"):
        if _depends_on_images(op.inputs[1].op):
            return [(value, factor, _counted(op.inputs[1]))]
        return _parts(op.inputs[0], factor / tf.cast(op.inputs[1], tf.float64))
    if op.type == "Mean" and value.shape.rank == 0:
        return [(value, factor, tf.size(op.inputs[0]))]
    if op.type == "Sum" and value.shape.rank == 0 and _depends_on_images(op):
        return [(value, factor, _SUM)]
    return [(value, factor, None)]


def _counted(divisor: Any) -> Any:
    """Return the count in a divisor that is kept from being 0, as in maximum(count, 1)."""
    if divisor.op.type == "Maximum":
        variable = [term for term in divisor.op.inputs if _depends_on_images(term.op)]
        if len(variable) == 1:
            return variable[0]
    return divisor


def _depends_on_images(op: Any) -> bool:
    """Return whether an operation depends on a placeholder, unlike a regularisation term."""
    seen, todo = set(), [op]
    while todo:
        op = todo.pop()
        if op.name not in seen:
            seen.add(op.name)
            if op.type == "Placeholder":
                return True
            todo += [tensor.op for tensor in op.inputs]
    return False
