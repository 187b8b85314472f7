"""Make the random numbers of a graph depend on a seed that is fed at each step.

TensorFlow 1's random operations have an internal state that checkpoints do not include and that cannot be set: a resumed
training would draw different numbers for its dropout. Each operation is replaced by the stateless one of the same
distribution.
"""

from __future__ import annotations

from typing import Any

import tensorflow

tf = tensorflow.compat.v1

_STATELESS = {
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
    """Make the random numbers of ``graph`` depend on ``graph_seed`` and on the returned int32 scalar, which is fed.

    Random numbers of the variables' initialisers do not change. Call it before adding gradients to the graph.
    """
    with graph.as_default():
        seed = tf.placeholder_with_default(0, [], "step_seed")
        initialisers = _ancestors([variable.initializer for variable in tf.global_variables()])
        random_ops = [op for op in graph.get_operations() if op.type in _STATELESS and op not in initialisers]
        for number, op in enumerate(random_ops):
            old = op.outputs[0]
            # the two parts of the seed: the step, and the operation within the network
            new = _STATELESS[op.type](op, tf.stack([seed, tf.constant((graph_seed + number) % 2**31)]))
            for consumer in old.consumers():
                for position, tensor in enumerate(consumer.inputs):
                    if tensor is old:
                        consumer._update_input(position, new)
    return seed


def _ancestors(ops: list[Any]) -> set[Any]:
    """Return the operations that ``ops`` depend on, including themselves."""
    ancestors: set[Any] = set()
    waiting = list(ops)
    while waiting:
        op = waiting.pop()
        if op not in ancestors:
            ancestors.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return ancestors
