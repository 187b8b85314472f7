"""Describe how a graph updates the averages that batch normalisation keeps (multiseg.network.Network.describe)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow.compat.v1 as tf

PASSING = ("Identity", "Reshape", "Squeeze", "StopGradient")


def rules(updates: Iterable[Any], variables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rule of each average by its neutral name, as far as it is recognised.

    ``updates`` are the update operations of a step, ``variables`` those of the network by neutral name. tf.layers and slim write
    ``average -= (average - statistic) * (1 - decay)``; the statistic of FusedBatchNorm is the unbiased variance. A variable that
    several operations update has no rule, because TensorFlow does not order them.
    """
    operations = [getattr(update, "op", update) for update in updates]
    names = {variable.handle.name: name for name, variable in variables.items()}
    counts = Counter(names[tensor.name] for op in operations for tensor in op.inputs if tensor.name in names)
    found: dict[str, dict[str, Any]] = {}
    for op in operations:
        name = names.get(op.inputs[0].name) if op.inputs else None
        rule = _rule(op) if name is not None and counts[name] == 1 else None
        if name is not None and rule is not None:
            found[name] = rule
    return found


def _rule(op: Any) -> dict[str, Any] | None:
    if op.type != "AssignSubVariableOp" or op.inputs[1].op.type != "Mul":
        return None
    difference, factor = op.inputs[1].op.inputs
    momentum = tf.get_static_value(factor)
    if momentum is None or difference.op.type != "Sub":
        return None
    average, statistic = difference.op.inputs
    if average.op.type != "ReadVariableOp" or average.op.inputs[0] is not op.inputs[0]:
        return None
    while statistic.op.type in PASSING:
        statistic = statistic.op.inputs[0]
    fused = statistic.op.type.startswith("FusedBatchNorm")
    if not fused and statistic.op.type != "Mean":
        return None
    return {"rule": "moving", "momentum": float(momentum), "unbiased": fused}
