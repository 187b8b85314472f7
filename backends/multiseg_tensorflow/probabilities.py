"""Losses of probabilities in a graph: whether they compute the sigmoid of the network's output, and which labels they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow

# operations that move or select values
MOVES = ("Identity", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Cast", "StridedSlice", "StopGradient")
SELECTS = ("Select", "SelectV2")
COMPARISONS = ("Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual")


def of_graph(graph: Any, output: Any) -> dict[str, Any]:
    """Return ``logits`` and ``label_range`` of a network's description; see :meth:`multiseg.network.Network.describe`.

    The operations of tf.nn.sigmoid_cross_entropy_with_logits and tf.nn.weighted_cross_entropy_with_logits are recognised
    under any name. {} if there are none.
    """
    found = list(_cross_entropies(graph))
    if not found:
        return {}
    scales = {_scale(labels, graph) for labels in found}
    scale = scales.pop() if len(scales) == 1 else None
    return {"logits": output.op.type != "Sigmoid", **({"label_range": [0, round(1 / scale)]} if scale else {})}


def _cross_entropies(graph: Any) -> Iterator[Any]:
    """Yield the labels of each cross entropy of a sigmoid, None if they are unknown.

    It is max(x, 0) - x z + log(1 + exp(-|x|)) for logits x and labels z. With a weight q of the positive labels, it is
    (1 - z) x + (1 + (q - 1) z) (log(1 + exp(-|x|)) + max(-x, 0)).
    """
    for op in graph.get_operations():
        if op.type != "Log1p" or op.inputs[0].op.type != "Exp":
            continue
        negative = op.inputs[0].op.inputs[0].op
        terms = [term.op for use in op.outputs[0].consumers() if use.type in ("Add", "AddV2") for term in use.inputs]
        if negative.type in SELECTS:  # -|x| = where(x >= 0, -x, x)
            products = [term.inputs[1].op for term in terms if term.type == "Sub" and term.inputs[1].op.type == "Mul"]
            if products:
                yield _other(products[0], negative.inputs[2])
        elif (
            negative.type == "Neg"
            and negative.inputs[0].op.type == "Abs"
            and any(term.type == "Relu" for term in terms)
        ):
            logits = negative.inputs[0].op.inputs[0]
            factors = [_other(use, logits).op for use in logits.consumers() if use.type == "Mul"]
            yield next((factor.inputs[1] for factor in factors if factor.type == "Sub"), None)


def _other(op: Any, tensor: Any) -> Any:
    """Return the other input of an operation of two inputs."""
    return op.inputs[1] if op.inputs[0].name == tensor.name else op.inputs[0]


def _scale(labels: Any, graph: Any) -> float | None:
    """Return the factor by which a graph multiplies its labels.

    None if they are computed otherwise, or are compared too, as in a loss that leaves out some of them.
    """
    source, factor = (None, 0.0) if labels is None else _source(labels)
    if source is None or not 0 < factor <= 1:
        return None
    comparisons = [op for op in graph.get_operations() if op.type in COMPARISONS]
    sources = [_source(each)[0] for op in comparisons for each in op.inputs]
    return None if any(each is not None and each.name == source.name for each in sources) else factor


def _source(tensor: Any) -> tuple[Any, float]:
    """Return the placeholder of which a tensor is a multiple, None if there is none, and the factor."""
    factor = 1.0
    while tensor.op.type not in ("Placeholder", "PlaceholderV2"):
        op = tensor.op
        constants = [tensorflow.get_static_value(each) for each in op.inputs] if op.type in ("Mul", "RealDiv") else []
        scalars = [None if each is None or each.ndim else float(each) for each in constants]
        if op.type in MOVES:
            tensor = op.inputs[0]
        elif op.type == "RealDiv" and scalars[1]:
            factor, tensor = factor / scalars[1], op.inputs[0]
        elif op.type == "Mul" and any(scalars):
            at = 0 if scalars[0] else 1
            factor, tensor = factor * float(scalars[at] or 0), op.inputs[1 - at]
        else:
            return None, 0.0
    return tensor, factor
