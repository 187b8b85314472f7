"""Replace operations of a graph by others that compute the same faster: convolutions, products with large kernels, and
the cross entropy of classes.

Operations with which oneDNN fails are replaced as well (avoided.py). Tensors keep their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow

from multiseg_tensorflow.lowering import avoided, cross_entropy, patches, products, upsampling
from multiseg_tensorflow.lowering.convolutions import KINDS
from multiseg_tensorflow.tensors import in_control_flow

tf = tensorflow.compat.v1

# Each has ``applies(op, device)``, whether it replaces an operation, and ``add(op, arguments, device)``, which adds operations
# to the default graph that compute it from placeholders for its inputs; the last one is named "output".
FAULTS = (avoided,)
RULES = (*FAULTS, patches, upsampling, products, cross_entropy)


def lower(graph: Any, device: str, rules: Sequence[Any] = RULES) -> tuple[Any, list[Any]]:
    """Return a copy of ``graph`` and its collections with operations replaced by the ``rules``, and the convolutions that were.

    All tensors keep their names. If there is nothing to replace, the graph itself is returned. ``device`` is the device of the
    session: cpu or cuda.
    """
    operations = graph.get_operations()
    replaced = {op.name: (op, rule) for op in operations for rule in _rules(op, device, rules)}
    # a custom gradient function may refer to tensors of its graph: its operation cannot be copied to another graph
    if not replaced or any("_gradient_op_type" in op.node_def.attr for op in operations):
        return graph, []
    meta = tf.train.export_meta_graph(graph=graph)
    nodes = list(meta.graph_def.node)
    del meta.graph_def.node[:]
    for node in nodes:
        meta.graph_def.node.extend(
            _replacement(node, *replaced[node.name], device) if node.name in replaced else [node]
        )
    lowered = tf.Graph()
    with lowered.as_default():
        tf.train.import_meta_graph(meta)
    return lowered, [op for op, _ in replaced.values() if op.type in KINDS]


def _rules(op: Any, device: str, rules: Sequence[Any]) -> list[Any]:
    """Return the first of the rules that replaces an operation, or none."""
    if in_control_flow(op):  # the gradient of a loop refers to its operations
        return []
    return [rule for rule in rules if rule.applies(op, device)][:1]


def _replacement(node: Any, op: Any, rule: Any, device: str) -> Iterator[Any]:
    """Yield the nodes that replace ``node``; the last one has its name."""
    with tf.Graph().as_default() as fragment:
        arguments = [tf.placeholder(tensor.dtype, tensor.shape) for tensor in op.inputs]
        rule.add(op, arguments, device)
    # operations of the user may have names in the scope of the operation, e.g. those of a separable convolution
    scope = op.graph.unique_name(f"{node.name}/lowered", mark_as_used=False)
    inputs, controls = node.input[: len(arguments)], node.input[len(arguments) :]
    names = {"output": node.name, **{argument.op.name: inputs[i] for i, argument in enumerate(arguments)}}
    for part in fragment.as_graph_def().node:
        if part.op != "Placeholder":
            part.input[:] = [names.get(source, f"{scope}/{source}") for source in part.input] + list(controls)
            part.name = names.get(part.name, f"{scope}/{part.name}")
            part.device = node.device
            yield part
