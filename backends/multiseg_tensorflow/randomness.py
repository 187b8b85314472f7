"""Random numbers of a graph that depend on a seed given at each step.

TensorFlow 1's random operations hold a state of their own, which no checkpoint keeps and nothing can set: a resumed
training would draw other numbers for its dropout. Each is replaced by its stateless twin of the same distribution.
"""

from __future__ import annotations

from typing import Any

import tensorflow

tf = tensorflow.compat.v1

_TWINS = {
    "RandomUniform": lambda op, seed: tf.random.stateless_uniform(op.inputs[0], seed, dtype=op.get_attr("dtype")),
    "RandomStandardNormal": lambda op, seed: tf.random.stateless_normal(op.inputs[0], seed, dtype=op.get_attr("dtype")),
    "TruncatedNormal": lambda op, seed: tf.random.stateless_truncated_normal(
        op.inputs[0], seed, dtype=op.get_attr("dtype")
    ),
    "RandomUniformInt": lambda op, seed: tf.random.stateless_uniform(
        op.inputs[0], seed, op.inputs[1], op.inputs[2], dtype=op.get_attr("Tout")
    ),
}


def depend_on_seed(graph: Any, graph_seed: int) -> Any:
    """Make the random numbers of ``graph`` depend on the int32 scalar that is returned, to be fed, and on ``graph_seed``.

    Those of the variables' first values stay as they are. To be called before gradients are taken.
    """
    with graph.as_default():
        seed = tf.placeholder_with_default(0, [], "step_seed")
        first_values = _ancestors([variable.initializer for variable in tf.global_variables()])
        drawn = [op for op in graph.get_operations() if op.type in _TWINS and op not in first_values]
        for number, op in enumerate(drawn):
            old = op.outputs[0]
            # the seed's two halves: which step, and which operation of which network
            new = _TWINS[op.type](op, tf.stack([seed, tf.constant((graph_seed + number) % 2**31)]))
            for consumer in old.consumers():
                for position, tensor in enumerate(consumer.inputs):
                    if tensor is old:
                        consumer._update_input(position, new)
    return seed


def _ancestors(ops: list[Any]) -> set[Any]:
    found: set[Any] = set()
    waiting = list(ops)
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return found
