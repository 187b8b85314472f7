"""Prune a graph to the operations of its output, and find its weights and the tensors that variables can replace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tensorflow
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.framework import tensor_util
from tensorflow.python.grappler import tf_optimizer

from multiseg.errors import ModelError
from multiseg_tensorflow.stored import Stored
from multiseg_tensorflow.tensors import VARIABLES

tf = tensorflow.compat.v1

# operation -> indices of its inputs that are weights
WEIGHTS = {
    "Conv2D": (1,),
    "DepthwiseConv2dNative": (1,),
    "Conv2DBackpropInput": (1,),
    "MatMul": (1,),
    "BiasAdd": (1,),
    "FusedBatchNorm": (1, 2, 3, 4),
    "FusedBatchNormV2": (1, 2, 3, 4),
    "FusedBatchNormV3": (1, 2, 3, 4),
}
PRODUCTS = ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MatMul", "BatchToSpaceND")
IDENTITIES = ("Identity", "ReadVariableOp", "Switch", "Enter")
STATISTICS = re.compile(r"(^|[/_])(moving|running)_(mean|var|variance)(_\d+)?$")


def prune(graph: Any, outputs: Sequence[Any], sources: Sequence[str]) -> Any:
    """Return a new graph of the operations that ``outputs`` and ``sources`` depend on, with function calls inlined."""
    definition = graph.as_graph_def()
    ends = [*(output.op.name for output in outputs), *(source.partition(":")[0] for source in sources)]
    subgraph = tf.graph_util.extract_sub_graph(definition, ends)
    if any(node.op in ("PartitionedCall", "StatefulPartitionedCall") for node in subgraph.node):
        subgraph.library.CopyFrom(definition.library)
        subgraph = _inline_functions(subgraph, [output.name for output in outputs])
    pruned = tf.Graph()
    with pruned.as_default():
        tf.import_graph_def(subgraph, name="")
    return pruned


def with_variable_values(graph: Any) -> Any:
    """Return the graph's definition with variable values in place of variable handles: reads become identities."""
    definition = graph.as_graph_def()
    for node in definition.node:
        op = graph.get_operation_by_name(node.name)
        if op.type == "ReadVariableOp":
            node.op = "Identity"
            node.attr["T"].CopyFrom(node.attr["dtype"])
            del node.attr["dtype"]
        elif op.type in IDENTITIES and origin(op.inputs[0]).type == "VarHandleOp":
            node.attr["T"].type = origin(op.inputs[0]).get_attr("dtype").as_datatype_enum
    return definition


def extract(definition: Any, ends: Iterable[str], inputs: set[str]) -> Any:
    """Return ``definition`` reduced to the nodes that compute the operations ``ends`` from the tensors ``inputs``."""
    nodes = {node.name: node for node in definition.node}
    input_ops = {name.partition(":")[0] for name in inputs}
    needed, waiting = set(), list(ends)
    while waiting:
        node = nodes[waiting.pop()]
        if node.name not in needed:
            needed.add(node.name)
            node.device = ""
            node.attr.pop("_class", None)  # colocation constraints
            kept = [name for name in node.input if not (name.startswith("^") and name[1:] in input_ops)]
            del node.input[:]
            node.input.extend(kept)
            sources = [name.lstrip("^").partition(":")[0] for name in kept]
            waiting.extend(name for name in sources if name not in input_ops)
    kept_nodes = [node for node in definition.node if node.name in needed]
    del definition.node[:]
    definition.node.extend(kept_nodes)
    return definition


def _inline_functions(definition: Any, outputs: Sequence[str]) -> Any:
    """Return the definition with the calls of its functions inlined, by TensorFlow's graph optimiser."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        meta = tf.train.export_meta_graph(graph=graph)
    meta.collection_def["train_op"].node_list.value.extend(outputs)
    config = config_pb2.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.min_graph_nodes = -1  # optimise small graphs too
    rewrite.optimizers.append("function")
    return tf_optimizer.OptimizeGraph(config, meta)


def weights(path: Path, ops: Iterable[Any], stored: Stored) -> tuple[dict[str, Any], dict[str, str], set[str]]:
    """Return the initial values of the variables of operations by name, the variable by the name of the tensor that it
    replaces, and the names of the variables that are not trained.

    Raises ModelError if the file has no value of a variable.
    """
    weights: dict[str, Any] = {}
    statistics: set[str] = set()
    for op in ops:
        if op.type in VARIABLES:
            if not op.get_attr("dtype").is_floating:
                continue
            if op.name not in stored.values:
                raise ModelError(
                    f"{path}: has no value for its variable {op.name}; freeze the graph, or use a MetaGraph with its "
                    "checkpoint"
                )
            weights[op.name] = stored.values[op.name]
        constant_operand = _per_channel_constant(op)
        if constant_operand is not None:
            weights[constant_operand.name] = _array(path, constant_operand)
            if not is_bias(op):
                statistics.add(constant_operand.name)
        # freezing turns the read of a variable into an Identity of a constant; other constants are weights by their use
        slots = (0,) if op.type == "Identity" else WEIGHTS.get(op.type, ())
        for slot in slots:
            source = origin(op.inputs[slot])
            if source.type == "Split" and op.type == "Conv2D":  # the kernel of a convolution with groups
                source = origin(source.inputs[1])
            value = source.outputs[0]
            if source.type == "Const" and value.dtype.is_floating and value.shape.rank and value.shape.num_elements():
                weights[source.name] = _array(path, source)
            if slot > 2:
                statistics.add(source.name)
    reads = {f"{name}:0": name for name in weights}
    return weights, reads, statistics | {name for name in weights if STATISTICS.search(name)}


def _array(path: Path, op: Any) -> Any:
    """Return the value of a constant. Raise ModelError if it does not have as many numbers as its shape needs."""
    try:
        return tensor_util.MakeNdarray(op.get_attr("value"))
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path}: is damaged: the value of {op.name} cannot be read: {error}") from error


def _per_channel_constant(op: Any) -> Any:
    """Return the constant with one element per channel that an operation adds to images or vectors, or multiplies them by."""
    if op.type not in ("Add", "AddV2", "Mul"):
        return None
    for operand, other in ((op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])):
        if operand.op.type == "Const" and is_per_channel(operand, other) and (operand.shape != [1] or is_bias(op)):
            return operand.op
    return None


def is_per_channel(operand: Any, images: Any) -> bool:
    """Return whether a tensor has one element for each channel of ``images``, or for each feature of vectors."""
    if not operand.dtype.is_floating or not images.shape.rank or not operand.shape.rank:
        return False
    shape, size = operand.shape.as_list(), operand.shape.num_elements()
    last = shape[-1] == size and images.shape.as_list()[-1] == size
    return bool(size and (last or (shape == [1, size, 1, 1] and images.shape.as_list()[1:2] == [size])))


def is_bias(op: Any) -> bool:
    """Return whether an operation adds to the output of a convolution or a product."""
    return op.type in ("Add", "AddV2", "Sub") and any(origin(tensor).type in PRODUCTS for tensor in op.inputs)


def origin(tensor: Any) -> Any:
    """Return the operation that produces a tensor, through identities."""
    while tensor.op.type in IDENTITIES:
        tensor = tensor.op.inputs[0]
    return tensor.op
