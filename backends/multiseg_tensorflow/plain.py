"""Load a plain TensorFlow graph as a network: find its input and output, and convert its weights to trainable variables."""

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
MAX_LISTED = 8  # tensors in an error message


@dataclass(frozen=True)
class Plain:
    """A graph with its input, output and weights, for images of any size.

    ``weights`` are the initial values by variable name, ``reads`` maps the names of tensors to the variables that replace
    them, ``frozen`` are the variables that are not trained, and ``fixed`` are the values of the graph's other placeholders
    (None for the value of ``is_training``).
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
        """The input's (H, W, C), with None for sizes that the file does not specify."""
        sizes = self.input.shape.as_list() if self.input.shape.rank == 4 else [None] * 4
        return [sizes[2], sizes[3], sizes[1]] if self.channels_first else sizes[1:]

    @property
    def channels_first(self) -> bool:
        """Whether the input is NCHW: axis 1 has a known size of at most 4, and the last axis an unknown or larger one."""
        if self.input.shape.rank != 4:
            return False
        _, first, _, last = self.input.shape.as_list()
        return first is not None and first <= 4 and (last is None or last > 4)


def plain(path: Path, stored: Stored) -> Plain:
    """Find the input, output and weights of a graph.

    Raises ModelError that names the file, and lists the candidates if the input or output is ambiguous.
    """
    graph = stored.graph
    if stored.output is None:
        dependent = _dependent(_inputs(graph) if stored.input is None else [_tensor(path, graph, stored.input)])
        stored.output = _single_name(path, "output", _final_tensors(graph, dependent), _images(graph, dependent))
    output = _tensor(path, graph, stored.output)
    graph = definitions.prune(graph, output, stored.input)
    output = graph.get_tensor_by_name(output.name)
    if stored.input is None:
        images = [tensor for tensor in _inputs(graph) if tensor.shape.rank in (None, 4)]
        stored.input = _single_name(path, "input", images)
    source = _tensor(path, graph, stored.input)
    if output.op not in _dependent([source]):
        raise ModelError(
            f"{path}: the output {output.name} does not depend on the input {source.name}; specify other tensors in "
            f"{names_file(path).name}"
        )
    fixed = {}
    for op in graph.get_operations():
        if op.type in INPUTS and op is not source.op:
            fixed[op.outputs[0].name] = _placeholder_value(path, op)
    weights, reads, frozen = definitions.weights(path, graph, stored)
    inputs = {*reads, *fixed, source.name}
    definition = definitions.extract(definitions.with_variable_values(graph), output.op.name, inputs)
    return Plain(path, definition, source, output, weights, reads, frozen, fixed)


class GraphTower(digits.Tower):
    """A plain graph with the interface of the class `UserModel` of a DIGITS file."""

    def __init__(self, graph: Plain, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.graph = graph

    @digits.model_property
    def inference(self) -> Any:
        """The output of the graph for ``x``, with variables in place of its weights."""
        graph = self.graph
        channels = graph.shape[2]
        if channels not in (None, self.input_shape[2]):
            raise ModelError(
                f"{graph.path}: its input {graph.input.name} takes images of {channels} channels, but the images have "
                f"{self.input_shape[2]}; convert the images, or export the graph again"
            )
        variables = {
            name: tf.get_variable(
                name, value.shape, value.dtype, tf.zeros_initializer(), trainable=name not in graph.frozen
            )
            for name, value in graph.weights.items()
        }
        with tf.name_scope("given"):  # a scope that does not collide with the names in the graph
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
                f"{graph.path}: its graph cannot process images (H, W, C) of {tuple(self.input_shape)}: "
                f"{str(error).partition(chr(10))[0]}"
            ) from error
        return digits.nchw_to_nhwc(output) if graph.channels_first and output.shape.rank == 4 else output

    @digits.model_property
    def loss(self) -> Any:
        """The default loss: mean squared difference, or mean cross entropy of the softmax for class indices."""
        output = self.inference
        if self.y.shape.rank == 4 and self.label_kind == IMAGES:
            return digits.mse_loss(output, self.y)
        last = definitions.origin(output)
        logits = last.inputs[0] if last.type == "Softmax" else output
        return digits.classification_loss(logits, self.y)


def tower(graph: Plain) -> Any:
    """Return a callable with the signature of the class `UserModel` of a DIGITS file."""
    return functools.partial(GraphTower, graph)


def _inputs(graph: Any) -> list[Any]:
    """Return the placeholders that may hold images: numeric ones that are not scalars."""
    placeholders = [op.outputs[0] for op in graph.get_operations() if op.type in INPUTS]
    return [
        tensor
        for tensor in placeholders
        if tensor.shape.rank != 0 and (tensor.dtype.is_floating or tensor.dtype.is_integer)
    ]


def _dependent(tensors: Iterable[Any]) -> set[Any]:
    """Return the operations that depend on the values of these tensors."""
    waiting, dependent = [op for tensor in tensors for op in [tensor.op, *tensor.consumers()]], set()
    while waiting:
        op = waiting.pop()
        if op not in dependent and op.type not in SHAPES:
            dependent.add(op)
            waiting.extend(consumer for tensor in op.outputs for consumer in tensor.consumers())
    return dependent


def _final_tensors(graph: Any, dependent: set[Any]) -> list[Any]:
    """Return the floating-point images and vectors that operations in ``dependent`` output and none of them uses."""
    ops = [op for op in graph.get_operations() if op in dependent and op.type not in INPUTS and op.outputs]
    last = [op for op in ops if not any(dependent & set(tensor.consumers()) for tensor in op.outputs)]
    tensors = [op.outputs[0] for op in last if not GRADIENTS.search(op.name)]
    return [tensor for tensor in tensors if tensor.dtype.base_dtype.is_floating and tensor.shape.rank != 0]


def _images(graph: Any, dependent: set[Any]) -> list[Any]:
    """Return the last images that operations in ``dependent`` output, without gradients: likely outputs of a training graph."""
    ops = [op for op in graph.get_operations() if op in dependent and op.type not in INPUTS and op.outputs]
    return [
        tensor
        for tensor in (op.outputs[0] for op in ops)
        if tensor.shape.rank == 4 and not GRADIENTS.search(tensor.name)
    ][-MAX_LISTED:]


def _single_name(path: Path, end: str, tensors: list[Any], others: Iterable[Any] = ()) -> str:
    """Return the name of the only tensor. Raise ModelError that lists all, or ``others`` if there are none."""
    if len(tensors) == 1:
        return str(tensors[0].name)
    listed = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in tensors[:MAX_LISTED] or others) or "none"
    more = f" and {len(tensors) - MAX_LISTED} more" if len(tensors) > MAX_LISTED else ""
    raise ModelError(
        f"{path}: has {len(tensors) or 'no'} {end}s for images instead of one; candidates: {listed}{more}; specify the {end} "
        f'in {names_file(path).name} in the same folder: {{"{end}": "NAME:0"}}'
    )


def _tensor(path: Path, graph: Any, name: str) -> Any:
    """Return the tensor ``name``, or output 0 of the operation ``name``. Raise ModelError if there is none."""
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError) as error:
        last = ", ".join(op.name for op in graph.get_operations()[-MAX_LISTED:])
        raise ModelError(
            f"{path}: has no tensor {name!r}; use the name of an existing one; its last operations are: {last}"
        ) from error


def _placeholder_value(path: Path, op: Any) -> Any:
    """Return the value for a placeholder other than the image; None for the value of ``is_training``.

    Raises ModelError if there is no known value.
    """
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
        f"specify an output that does not depend on it in {names_file(path).name}, or export the graph with "
        "tf.placeholder_with_default"
    )
