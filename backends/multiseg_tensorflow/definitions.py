"""A graph's definition, cut to what its output needs, with its weights where they can be given."""

from __future__ import annotations

import re
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

# operations and which of their inputs are weights
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
PASSED_ON = ("Identity", "ReadVariableOp", "Switch", "Enter")
STATISTICS = re.compile(r"(^|[/_])(moving|running)_(mean|var|variance)(_\d+)?$")


def pruned(graph: Any, output: Any, source: str | None) -> Any:
    """What ``output`` is made of, with functions put in where they are called."""
    definition = graph.as_graph_def()
    ends = [output.op.name] + ([] if source is None else [source.partition(":")[0]])
    pruned = tf.graph_util.extract_sub_graph(definition, ends)
    if any(node.op in ("PartitionedCall", "StatefulPartitionedCall") for node in pruned.node):
        pruned.library.CopyFrom(definition.library)
        pruned = _inlined(pruned, output.name)
    fresh = tf.Graph()
    with fresh.as_default():
        tf.import_graph_def(pruned, name="")
    return fresh


def reading_values(graph: Any) -> Any:
    """The graph's definition with variables' values where it has handles of them: reads pass them on."""
    definition = graph.as_graph_def()
    for node in definition.node:
        op = graph.get_operation_by_name(node.name)
        if op.type == "ReadVariableOp":
            node.op = "Identity"
            node.attr["T"].CopyFrom(node.attr["dtype"])
            del node.attr["dtype"]
        elif op.type in PASSED_ON and op.inputs[0].dtype == tf.resource:
            node.attr["T"].type = origin(op.inputs[0]).get_attr("dtype").as_datatype_enum
    return definition


def without(definition: Any, output: str, given: set[str]) -> Any:
    """What of a graph is computed for the operation ``output`` where the tensors ``given`` are given."""
    nodes = {node.name: node for node in definition.node}
    gone = {name.partition(":")[0] for name in given}
    needed, waiting = set(), [output]
    while waiting:
        node = nodes[waiting.pop()]
        if node.name not in needed:
            needed.add(node.name)
            node.device = ""
            node.attr.pop("_class", None)  # which others it is to be placed with
            kept = [name for name in node.input if not (name.startswith("^") and name[1:] in gone)]
            del node.input[:]
            node.input.extend(kept)
            sources = [name.lstrip("^").partition(":")[0] for name in kept]
            waiting.extend(name for name in sources if name not in gone)
    kept = [node for node in definition.node if node.name in needed]
    del definition.node[:]
    definition.node.extend(kept)
    return definition


def _inlined(definition: Any, output: str) -> Any:
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        meta = tf.train.export_meta_graph(graph=graph)
    meta.collection_def["train_op"].node_list.value.append(output)
    config = config_pb2.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.min_graph_nodes = -1  # also small graphs
    rewrite.optimizers.append("function")
    return tf_optimizer.OptimizeGraph(config, meta)


def weights(path: Path, graph: Any, stored: Stored) -> tuple[dict[str, Any], dict[str, str], set[str]]:
    """Start values by variable, the tensors that give way to each, and the names of those not to train."""
    weights: dict[str, Any] = {}
    statistics: set[str] = set()
    for op in graph.get_operations():
        if op.type in VARIABLES:
            if not op.get_attr("dtype").is_floating:
                continue
            if op.name not in stored.values:
                raise ModelError(
                    f"{path}: says nothing of the value of its variable {op.name}; freeze the graph, or give the "
                    "MetaGraph with its checkpoint"
                )
            weights[op.name] = stored.values[op.name]
        # what freezing makes of the read of a variable, and what is taken as weight
        slots = (0,) if op.type == "Identity" else WEIGHTS.get(op.type, ())
        for slot in slots:
            source = origin(op.inputs[slot])
            value = source.outputs[0]
            if source.type == "Const" and value.dtype.is_floating and value.shape.rank and value.shape.num_elements():
                weights[source.name] = tensor_util.MakeNdarray(source.get_attr("value"))
            if slot > 2:
                statistics.add(source.name)
    reads = {f"{name}:0": name for name in weights}
    return weights, reads, statistics | {name for name in weights if STATISTICS.search(name)}


def origin(tensor: Any) -> Any:
    """The operation behind a tensor that is passed on."""
    while tensor.op.type in PASSED_ON:
        tensor = tensor.op.inputs[0]
    return tensor.op
