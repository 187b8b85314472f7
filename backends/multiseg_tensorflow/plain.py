"""Load a plain TensorFlow graph as a network: find its input and output, and convert its weights to trainable variables."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow

from multiseg.errors import ModelError, setting
from multiseg.network import IMAGES
from multiseg_tensorflow import allowed, definitions, digits, folding, switches
from multiseg_tensorflow.stored import Stored, names_file
from multiseg_tensorflow.switches import INPUTS, Mask, Values
from multiseg_tensorflow.tensors import INPUT_SCOPE, SHAPES, VARIABLES, reachable

tf = tensorflow.compat.v1

GRADIENTS = re.compile(r"(^|/)gradients(_\d+)?/")
AFTER_ARGMAX = ("Cast", "ExpandDims", "Squeeze", "Reshape", "Identity", "Slice", "StridedSlice")
MAX_LISTED = 8  # tensors in an error message


@dataclass(frozen=True)
class Plain:
    """A graph with its input, output and weights, for images of any size.

    ``weights`` are the initial values by variable name, ``reads`` maps the names of tensors to the variables that replace them,
    ``outputs`` are tensors by their titles, ``more`` the inputs after the first, ``frozen`` are the variables that are not
    trained, ``constants`` those that are constants of a graph with variables, so that its checkpoint lacks them, ``fixed`` are
    the values of the graph's other placeholders, and ``folded`` the variables of the file that are replaced by what is computed
    from them.
    """

    path: Path
    definition: Any
    input: Any
    outputs: dict[str, Any]
    more: list[Any]
    weights: dict[str, Any]
    reads: dict[str, str]
    frozen: set[str]
    constants: set[str]
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


def plain(path: Path, stored: Stored, chosen: Sequence[str] = ()) -> Plain:
    """Find the inputs, outputs and weights of a graph.

    ``chosen`` are names of tensors that are the outputs if the file does not say which. Raises ModelError that names the file,
    and lists the candidates if the input or output is ambiguous.
    """
    graph = stored.graph
    _choose(path, stored)
    specified = list(stored.inputs.values()) if stored.input is None else [stored.input]
    if stored.output is None and not stored.outputs:
        dependent = _dependent([_tensor(path, graph, name) for name in specified] or _inputs(graph))
        finals = _final_tensors(graph, dependent)
        if len(finals) > 1 and chosen:
            stored.outputs = {name: _tensor(path, graph, name).name for name in chosen}
        else:
            stored.output = _single_name(path, "output", finals, _images(graph, dependent))
    titled = stored.outputs if stored.output is None else {"": stored.output}
    outputs = {title: _scores(_tensor(path, graph, name)) for title, name in titled.items()}
    fed = [_tensor(path, graph, name).op for name in specified]
    allowed.check(path, graph, [output.op for output in outputs.values()], fed)
    try:
        graph = definitions.prune(graph, list(outputs.values()), specified)
    except KeyError as error:
        raise ModelError(f"{path}: is damaged: an operation names {error.args[0]!r}, which does not exist") from error
    outputs = {title: graph.get_tensor_by_name(output.name) for title, output in outputs.items()}
    dropouts = switches.masks(graph)
    if not specified:
        probabilities = {op for mask in dropouts for op in mask.placeholders}
        images = [tensor for tensor in _inputs(graph) if tensor.op not in probabilities]
        images = [tensor for tensor in images if tensor.shape.rank in (None, 4)]
        several = len(images) > 1 and all(tensor.shape.rank == 4 for tensor in images)
        specified = [tensor.name for tensor in images] if several else [_single_name(path, "input", images)]
    sources = [_tensor(path, graph, name) for name in specified]
    for output in outputs.values():
        if output.op not in _dependent(sources):
            raise ModelError(
                f"{path}: the output {output.name} does not depend on the input {sources[0].name}; specify other tensors in "
                f"{names_file(path).name}"
            )
    graph, folded = folding.fold(graph, [output.op.name for output in outputs.values()], stored.values, sources)
    sources = [graph.get_tensor_by_name(source.name) for source in sources]
    outputs = {title: graph.get_tensor_by_name(output.name) for title, output in outputs.items()}
    ends, fed = [output.op for output in outputs.values()], [source.op for source in sources]
    # operations before an input within the graph are not computed
    needed = reachable(ends, lambda op: () if op in fed else [*(t.op for t in op.inputs), *op.control_inputs])
    source, *more = [source for source in sources if source.op in needed]
    placeholders = [op for op in graph.get_operations() if op.type in INPUTS and op in needed and op not in fed]
    fixed = _fixed(path, placeholders, ends, switches.masks(graph), stored.specified)
    weights, reads, frozen = definitions.weights(path, [op for op in graph.get_operations() if op in needed], stored)
    _check_updates(path, needed)
    variables = {op.name for op in graph.get_operations() if op.type in VARIABLES}
    constants = weights.keys() - variables if weights.keys() & variables else set()
    inputs = {*reads, *fixed, *(tensor.name for tensor in sources)}
    definition = definitions.extract(definitions.with_variable_values(graph), [op.name for op in ends], inputs)
    return Plain(path, definition, source, outputs, more, weights, reads, frozen, constants, fixed, folded)


class GraphTower(digits.Tower):
    """A plain graph with the interface of the class `UserModel` of a DIGITS file."""

    def __init__(self, graph: Plain, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.graph, self.is_graph = graph, True

    @digits.model_property
    def inference(self) -> Any:
        """The output of the graph for ``x``, or a dict of several, with variables in place of its weights."""
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
        mapping.update({tensor.name: self._further(tensor) for tensor in graph.more})
        scope = digits.GraphKeys.MODEL + "/"
        try:
            outputs = tf.import_graph_def(
                graph.definition, input_map=mapping, return_elements=[each.name for each in graph.outputs.values()],
                name=scope,
            )  # fmt: skip
        except ValueError as error:
            raise ModelError(
                f"{graph.path}: its graph cannot process images (H, W, C) of {tuple(self.input_shape)}: "
                f"{str(error).partition(chr(10))[0]}"
            ) from error
        outputs = [
            digits.nchw_to_nhwc(output) if graph.channels_first and output.shape.rank == 4 else output
            for output in outputs
        ]
        return outputs[0] if list(graph.outputs) == [""] else dict(zip(graph.outputs, outputs))  # noqa: B905

    def _further(self, tensor: Any) -> Any:
        """Return what is fed to an input after the first: a placeholder of its own, of the size of the images if it has none."""
        shape = tensor.shape.as_list() if tensor.shape.rank else []
        name = tensor.op.name.rpartition("/")[2]
        if len(shape) != 4:
            if not shape or None in shape[1:]:
                raise ModelError(f"{self.graph.path}: does not specify the size of its input {tensor.name}")
            return tf.cast(tf.placeholder(tf.float32, shape, name), tensor.dtype)
        first = self.graph.channels_first
        sizes = [shape[2], shape[3], shape[1]] if first else shape[1:]
        sizes = [own or size for own, size in zip(sizes, self.input_shape)]  # noqa: B905
        x = tf.placeholder(tf.float32, [None, *sizes], name)
        return tf.cast(digits.nhwc_to_nchw(x) if first else x, tensor.dtype)

    @digits.model_property
    def loss(self) -> Any:
        """The default loss: mean squared difference, or mean cross entropy of the softmax for class indices."""
        output = self.inference
        if self.y.shape.rank == 4 and self.label_kind == IMAGES:
            return digits.mse_loss(output, self.y)
        last = definitions.origin(output)
        logits = last.inputs[0] if last.type == "Softmax" else output
        return digits.classification_loss(logits, self.y)


def _choose(path: Path, stored: Stored) -> None:
    """Keep the images, and vectors, of a signature with several inputs or outputs: scores rather than the classes of these.

    Other inputs are switches and probabilities of dropout; other outputs are losses and counts. What is one only is found in the
    graph, as without a signature.
    """
    tensors = {key: _tensor(path, stored.graph, name) for key, name in stored.inputs.items()}
    numeric = {key: tensor for key, tensor in tensors.items() if tensor.dtype.is_floating or tensor.dtype.is_integer}
    images = {key: tensor for key, tensor in numeric.items() if tensor.shape.rank == 4}
    stored.inputs = {key: tensor.name for key, tensor in images.items()} if len(images) > 1 else {}
    tensors = {key: _tensor(path, stored.graph, name) for key, name in stored.outputs.items()}
    scores = {key: _scores(tensor) for key, tensor in tensors.items() if tensor.shape.rank in (2, 4, None)}
    scores = {
        key: tensor for key, tensor in scores.items() if tensor.dtype.is_floating and tensors[key] is tensor
    } or scores
    names = {key: tensor.name for key, tensor in scores.items()}
    stored.outputs = names if len(set(names.values())) > 1 else {}


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
    tensors = [op.outputs[0] for op in last if not _belongs_to_solver(op)]
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
    return [op.outputs[0] for op in ops if op.outputs[0].shape.rank == 4 and not _belongs_to_solver(op)][-MAX_LISTED:]


def _belongs_to_solver(op: Any) -> bool:
    """Return whether an operation computes gradients, or changes a variable: its output is a reference to the variable."""
    return bool(op.outputs and op.outputs[0].dtype._is_ref_dtype) or GRADIENTS.search(op.name) is not None


def _single_name(path: Path, end: str, tensors: list[Any], others: Iterable[Any] = ()) -> str:
    """Return the name of the only tensor. Raise ModelError that lists all, or ``others`` if there are none."""
    if len(tensors) == 1:
        return str(tensors[0].name)
    listed = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in tensors[:MAX_LISTED] or others) or "none"
    option = f"as {setting('outputs', example='NAME')}, or " if end == "output" else ""
    more = f" and {len(tensors) - MAX_LISTED} more" if len(tensors) > MAX_LISTED else ""
    raise ModelError(
        f"{path}: has {len(tensors) or 'no'} {end}s for images instead of one; candidates: {listed}{more}; specify the {end} "
        f'{option}in {names_file(path).name} in the same folder: {{"{end}": "NAME:0"}}'
    )


def _tensor(path: Path, graph: Any, name: str) -> Any:
    """Return the tensor ``name``, or output 0 of the operation ``name``. Raise ModelError if there is none."""
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError) as error:
        of_images = _dependent(_inputs(graph))
        ops = [op for op in graph.get_operations() if op in of_images and op.outputs and not _belongs_to_solver(op)]
        last = ", ".join(op.name for op in (ops or graph.get_operations())[-MAX_LISTED:])
        raise ModelError(
            f"{path}: has no tensor {name!r}; use the name of an existing one; its last operations are: {last}"
        ) from error


def _check_updates(path: Path, ops: Iterable[Any]) -> None:
    """Raise ModelError if one of the operations of the network changes a variable, of which only the value is used here."""
    for op in sorted(ops, key=lambda op: op._id):
        of_reference = op.op_def.input_arg and op.op_def.input_arg[0].is_ref and not op.type.startswith("Ref")
        if of_reference or (op.type.startswith("Assign") and op.inputs[0].dtype == tf.resource):
            variable = op.inputs[0].op
            while variable.type not in VARIABLES and variable.inputs:  # through the branches of a condition
                variable = variable.inputs[0].op
            raise ModelError(
                f"{path}: its output waits for {op.name} ({op.type}), which changes the variable {variable.name}; multiseg reads "
                "graphs that change none: save the network as it is in prediction, or freeze the graph"
            )


def _fixed(
    path: Path, ops: list[Any], outputs: list[Any], dropouts: list[Mask], specified: dict[str, Any]
) -> dict[str, Values]:
    """Return the values of the placeholders ``ops`` besides the image's, by the name of their tensor.

    ``specified`` are those of the names file. Raises ModelError if neither it nor the graph determines a value.
    """
    known = switches.values_of([op for op in ops if op.name not in specified], outputs, dropouts)
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
