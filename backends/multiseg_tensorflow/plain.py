"""A plain TensorFlow graph as a network: its input and output found, its weights made variables that can be trained."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow
from tensorflow.python.framework import tensor_util

from multiseg.errors import ModelError
from multiseg.network import IMAGES
from multiseg_tensorflow import definitions, digits
from multiseg_tensorflow.stored import Stored, names_file
from multiseg_tensorflow.tensors import SHAPES

tf = tensorflow.compat.v1

INPUTS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
GRADIENTS = re.compile(r"(^|/)gradients(_\d+)?/")
LISTED = 8


@dataclass(frozen=True)
class Plain:
    """What is known of a graph before an image's size is.

    ``weights`` are start values by variable name; ``reads`` says which tensors give way to which variable; ``fixed`` are
    the graph's other placeholders.
    """

    path: Path
    definition: Any
    input: Any
    output: Any
    weights: dict[str, Any]
    reads: dict[str, str]
    frozen: set[str]
    fixed: dict[str, Any]

    @property
    def shape(self) -> list[int | None]:
        """The input's H, W, C, as far as the file says them."""
        known = self.input.shape.as_list() if self.input.shape.rank == 4 else [None] * 4
        return [known[2], known[3], known[1]] if self.channels_first else known[1:]

    @property
    def channels_first(self) -> bool:
        """Whether the input is NCHW: it has a number of channels there and none, or more than there, at its end."""
        if self.input.shape.rank != 4:
            return False
        _, first, _, last = self.input.shape.as_list()
        return first is not None and first <= 4 and (last is None or last > 4)


def plain(path: Path, stored: Stored) -> Plain:
    """Find a graph's ends and weights. Raises ModelError naming the file, listing the candidates where there are several."""
    graph = stored.graph
    if stored.output is None:
        reached = _reached(_inputs(graph) if stored.input is None else [_tensor(path, graph, stored.input)])
        stored.output = _only(path, "output", _ends(graph, reached), _images(graph, reached))
    output = _tensor(path, graph, stored.output)
    graph = definitions.prune(graph, output, stored.input)
    output = graph.get_tensor_by_name(output.name)
    if stored.input is None:
        images = [tensor for tensor in _inputs(graph) if tensor.shape.rank in (None, 4)]
        stored.input = _only(path, "input", images)
    source = _tensor(path, graph, stored.input)
    if output.op not in _reached([source]):
        raise ModelError(f"{path}: the output {output.name} does not depend on the input {source.name}; name others")
    fixed = {}
    for op in graph.get_operations():
        if op.type in INPUTS and op is not source.op:
            fixed[op.outputs[0].name] = _switch(path, op)
    weights, reads, frozen = definitions.weights(path, graph, stored)
    inputs = {*reads, *fixed, source.name}
    definition = definitions.extract(definitions.with_variable_values(graph), output.op.name, inputs)
    return Plain(path, definition, source, output, weights, reads, frozen, fixed)


class GraphTower(digits.Tower):
    """A plain graph where DIGITS has a user's class."""

    def __init__(self, graph: Plain, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.graph = graph

    @digits.model_property
    def inference(self) -> Any:
        """The graph over ``x``, with variables of its own for its weights."""
        graph = self.graph
        known = graph.shape
        if known[2] not in (None, self.input_shape[2]):
            raise ModelError(
                f"{graph.path}: its input {graph.input.name} takes images of {known[2]} channels, they have "
                f"{self.input_shape[2]}; convert the images, or export the graph anew"
            )
        variables = {
            name: tf.get_variable(
                name, value.shape, value.dtype, tf.zeros_initializer(), trainable=name not in graph.frozen
            )
            for name, value in graph.weights.items()
        }
        with tf.name_scope("given"):  # away from the graph's own names
            x = digits.nhwc_to_nchw(self.x) if graph.channels_first else self.x
            mapping = {graph.input.name: tf.cast(x, graph.input.dtype)}
            mapping.update({read: tf.convert_to_tensor(variables[name]) for read, name in graph.reads.items()})
            for name, value in graph.fixed.items():
                mapping[name] = tf.constant(self.is_training if value is None else value)
        scope = digits.GraphKeys.MODEL + "/"
        try:
            (output,) = tf.import_graph_def(
                graph.definition, input_map=mapping, return_elements=[graph.output.name], name=scope
            )
        except ValueError as error:
            raise ModelError(
                f"{graph.path}: its graph does not take images (H, W, C) of {tuple(self.input_shape)}: "
                f"{str(error).partition(chr(10))[0]}"
            ) from error
        return digits.nchw_to_nhwc(output) if graph.channels_first and output.shape.rank == 4 else output

    @digits.model_property
    def loss(self) -> Any:
        """A graph has none: the mean squared difference, or for class indices the mean cross entropy of the softmax."""
        output = self.inference
        if self.y.shape.rank == 4 and self.label_kind == IMAGES:
            return digits.mse_loss(output, self.y)
        last = definitions.origin(output)
        logits = last.inputs[0] if last.type == "Softmax" else output
        return digits.classification_loss(logits, self.y)


def tower(graph: Plain) -> Any:
    """What is called as DIGITS calls a user's class."""
    return functools.partial(GraphTower, graph)


def _inputs(graph: Any) -> list[Any]:
    """Placeholders that may be images: numbers, not switches."""
    found = [op.outputs[0] for op in graph.get_operations() if op.type in INPUTS]
    return [
        tensor for tensor in found if tensor.shape.rank != 0 and (tensor.dtype.is_floating or tensor.dtype.is_integer)
    ]


def _reached(tensors: Iterable[Any]) -> set[Any]:
    """The operations that take values from these tensors, directly or not."""
    ahead, reached = [op for tensor in tensors for op in [tensor.op, *tensor.consumers()]], set()
    while ahead:
        op = ahead.pop()
        if op not in reached and op.type not in SHAPES:
            reached.add(op)
            ahead.extend(consumer for tensor in op.outputs for consumer in tensor.consumers())
    return reached


def _ends(graph: Any, reached: set[Any]) -> list[Any]:
    """What operations in ``reached`` make that none there uses: images or vectors, of float."""
    made = [op for op in graph.get_operations() if op in reached and op.type not in INPUTS and op.outputs]
    last = [op for op in made if not any(reached & set(tensor.consumers()) for tensor in op.outputs)]
    tensors = [op.outputs[0] for op in last if not GRADIENTS.search(op.name)]
    return [tensor for tensor in tensors if tensor.dtype.base_dtype.is_floating and tensor.shape.rank != 0]


def _images(graph: Any, reached: set[Any]) -> list[Any]:
    """The last images that operations in ``reached`` make, gradients left out: what a graph that trains may mean as output."""
    made = [op.outputs[0] for op in graph.get_operations() if op in reached and op.type not in INPUTS and op.outputs]
    return [tensor for tensor in made if tensor.shape.rank == 4 and not GRADIENTS.search(tensor.name)][-LISTED:]


def _only(path: Path, end: str, tensors: list[Any], others: Iterable[Any] = ()) -> str:
    """The name of the one tensor; an error lists all, or ``others`` where there is none."""
    if len(tensors) == 1:
        return str(tensors[0].name)
    listed = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in tensors[:LISTED] or others) or "none"
    more = f" and {len(tensors) - LISTED} more" if len(tensors) > LISTED else ""
    raise ModelError(
        f"{path}: has {len(tensors) or 'no'} {end}s for images, not one; it has {listed}{more}; name the one to use in "
        f'{names_file(path).name} beside it: {{"{end}": "NAME:0"}}'
    )


def _tensor(path: Path, graph: Any, name: str) -> Any:
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError) as error:
        last = ", ".join(op.name for op in graph.get_operations()[-LISTED:])
        raise ModelError(f"{path}: has no tensor {name!r}; the last of its operations are: {last}") from error


def _switch(path: Path, op: Any) -> Any:
    """What a placeholder beside the image is set to; None stands for whether the network is trained."""
    tensor, name = op.outputs[0], op.name.rpartition("/")[2].lower()
    if tensor.dtype == tf.bool:
        return None
    if tensor.dtype.is_floating and tensor.shape.rank in (0, None):
        if "keep" in name:
            return np.array(1, tensor.dtype.as_numpy_dtype)
        if "rate" in name or "drop" in name:
            return np.array(0, tensor.dtype.as_numpy_dtype)
    if op.type == "PlaceholderWithDefault":
        default = tensor_util.constant_value(op.inputs[0])
        if default is not None:
            return default
    raise ModelError(
        f"{path}: needs a value for the placeholder {tensor.name} ({tensor.dtype.name}, {tensor.shape}) besides its image; "
        "name an output that does not, or export the graph with tf.placeholder_with_default"
    )
