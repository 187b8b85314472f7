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

from multiseg.errors import ModelError
from multiseg.network import IMAGES
from multiseg_tensorflow import allowed, definitions, digits, folding, switches
from multiseg_tensorflow.stored import Stored, names_file
from multiseg_tensorflow.switches import INPUTS, Mask, Values
from multiseg_tensorflow.tensors import INPUT_SCOPE, SHAPES, reachable

tf = tensorflow.compat.v1

GRADIENTS = re.compile(r"(^|/)gradients(_\d+)?/")
AFTER_ARGMAX = ("Cast", "ExpandDims", "Squeeze", "Reshape", "Identity", "Slice", "StridedSlice")
MAX_LISTED = 8  # tensors in an error message


@dataclass(frozen=True)
class Plain:
    """A graph with its input, output and weights, for images of any size.

    ``weights`` are the initial values by variable name, ``reads`` maps the names of tensors to the variables that replace
    them, ``frozen`` are the variables that are not trained, ``fixed`` are the values of the graph's other placeholders, and
    ``folded`` the variables of the file that are replaced by what is computed from them.
    """

    path: Path
    definition: Any
    input: Any
    output: Any
    weights: dict[str, Any]
    reads: dict[str, str]
    frozen: set[str]
    fixed: dict[str, Values]
    folded: set[str]

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
    output = _scores(_tensor(path, graph, stored.output))
    fed = [] if stored.input is None else [_tensor(path, graph, stored.input).op]
    allowed.check(path, graph, [output.op], fed)
    graph = definitions.prune(graph, output, stored.input)
    output = graph.get_tensor_by_name(output.name)
    dropouts = switches.masks(graph)
    if stored.input is None:
        probabilities = {op for mask in dropouts for op in mask.placeholders}
        images = [tensor for tensor in _inputs(graph) if tensor.op not in probabilities]
        stored.input = _single_name(path, "input", [tensor for tensor in images if tensor.shape.rank in (None, 4)])
    source = _tensor(path, graph, stored.input)
    if output.op not in _dependent([source]):
        raise ModelError(
            f"{path}: the output {output.name} does not depend on the input {source.name}; specify other tensors in "
            f"{names_file(path).name}"
        )
    graph, folded = folding.fold(graph, output.op.name, stored.values, source)
    source, output = graph.get_tensor_by_name(source.name), graph.get_tensor_by_name(output.name)
    # operations before an input within the graph are not computed
    needed = reachable(
        [output.op], lambda op: () if op is source.op else [*(t.op for t in op.inputs), *op.control_inputs]
    )
    placeholders = [op for op in graph.get_operations() if op.type in INPUTS and op in needed and op is not source.op]
    fixed = _fixed(path, placeholders, output, switches.masks(graph), stored.specified)
    weights, reads, frozen = definitions.weights(path, [op for op in graph.get_operations() if op in needed], stored)
    inputs = {*reads, *fixed, source.name}
    definition = definitions.extract(definitions.with_variable_values(graph), [output.op.name], inputs)
    return Plain(path, definition, source, output, weights, reads, frozen, fixed, folded)


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
        with tf.name_scope(INPUT_SCOPE):  # a scope that does not collide with the names in the graph
            x = digits.nhwc_to_nchw(self.x) if graph.channels_first else self.x
            mapping = {graph.input.name: tf.cast(x, graph.input.dtype)}
            mapping.update({read: tf.convert_to_tensor(variables[name]) for read, name in graph.reads.items()})
            for name, value in graph.fixed.items():
                mapping[name] = tf.constant(value.training if self.is_training else value.inference)
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
    """Return the placeholders that may hold images: numeric ones of rank 4, or if there are none, those that are not scalars."""
    placeholders = [op.outputs[0] for op in graph.get_operations() if op.type in INPUTS]
    numeric = [tensor for tensor in placeholders if tensor.dtype.is_floating or tensor.dtype.is_integer]
    images = [tensor for tensor in numeric if tensor.shape.rank == 4]
    return images or [tensor for tensor in numeric if tensor.shape.rank != 0]


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
    floats = [tensor for tensor in tensors if tensor.dtype.base_dtype.is_floating and tensor.shape.rank != 0]
    scores = {_scores(tensor).name: _scores(tensor) for tensor in tensors if tensor.dtype.base_dtype.is_integer}
    return floats or [tensor for tensor in scores.values() if tensor.dtype.base_dtype.is_floating]


def _scores(tensor: Any) -> Any:
    """Return the scores that the class indices ``tensor`` are the ArgMax of, or ``tensor`` itself if it is none."""
    op = tensor.op
    while op.type in AFTER_ARGMAX and op.inputs:
        op = op.inputs[0].op
    return op.inputs[0] if op.type == "ArgMax" else tensor


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


def _fixed(
    path: Path, ops: list[Any], output: Any, dropouts: list[Mask], specified: dict[str, Any]
) -> dict[str, Values]:
    """Return the values of the placeholders ``ops`` besides the image's, by the name of their tensor.

    ``specified`` are those of the names file. Raises ModelError if neither it nor the graph determines a value.
    """
    known = switches.values_of([op for op in ops if op.name not in specified], output, dropouts)
    for op in ops:
        if op.name in specified:
            array = np.array(specified[op.name]).astype(op.outputs[0].dtype.as_numpy_dtype)
            known[op.name] = Values(array, array)
    fixed = {}
    for op in ops:
        tensor, value = op.outputs[0], known[op.name]
        if value is None:
            raise ModelError(
                f"{path}: needs a value for the placeholder {tensor.name} ({tensor.dtype.name}, {tensor.shape}) besides its "
                f"image, and its use does not tell one; specify it in {names_file(path).name} in the same folder: "
                f'{{"values": {{"{op.name}": VALUE}}}}, or an output that does not depend on it, or export the graph with '
                "tf.placeholder_with_default"
            )
        fixed[tensor.name] = value
    return fixed
