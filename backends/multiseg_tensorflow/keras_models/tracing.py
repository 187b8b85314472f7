"""Trace a Keras model as a TensorFlow graph whose operations and variables have the names of the model's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow

from multiseg.errors import ModelError
from multiseg.topology.names import unused
from multiseg_tensorflow import definitions
from multiseg_tensorflow.keras_models.forms import form_of
from multiseg_tensorflow.keras_models.loading import as_tensorflow_2, lines_of

tf = tensorflow.compat.v1


@dataclass(frozen=True)
class Traced:
    """A graph definition of a model for one image shape.

    ``input`` and ``output`` are names of tensors. ``handles`` maps the names of tensors to the variables whose handles replace
    them, ``seeds`` are the names of tensors to replace by seeds of random numbers, of ``seed_type``, and ``constants`` the values
    of others. ``updates`` are the names of the operations that update averages in training.
    """

    definition: Any
    input: str
    output: str
    handles: dict[str, str]
    seeds: dict[str, Any]
    constants: dict[str, Any]
    updates: list[str]


def layers_of(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the layers of a model and of the models within it with their paths, each once."""
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        yield path, layer
        if hasattr(layer, "layers"):
            yield from layers_of(layer, f"{path}/")


def variables_of(model: Any) -> dict[str, Any]:
    """Return the variables of a model by name, ``layer/kernel``; within a model, ``model/layer/kernel``."""
    variables: dict[str, Any] = {}
    visited: set[int] = set()
    for path, layer in layers_of(model):
        for variable in () if hasattr(layer, "layers") else layer.variables:
            if id(variable) not in visited and variable.dtype.startswith("float"):
                visited.add(id(variable))
                inner = f"/{variable.path}".partition(f"/{layer.name}/")[2]
                name = f"{path}/{inner or variable.name}"
                variables[unused(name, variables, first=1)] = variable
    return variables


def trace(path: Path, model: Any, variables: dict[str, Any], shape: Sequence[int | None], training: bool) -> Traced:
    """Return the graph of a model for images of ``shape`` (N, H, W, C). Raises ModelError if it cannot process them."""
    with as_tensorflow_2(), _scopes(model):
        function = tensorflow.function(lambda x: model(x, training=training), autograph=False)
        try:
            graph = function.get_concrete_function(tensorflow.TensorSpec(list(shape), tensorflow.float32)).graph
        except Exception as error:  # Keras and TensorFlow raise many kinds
            reason = "".join(lines_of(error)[:2][-1:])  # the first line names the layer's method
            raise ModelError(
                f"{path}: its layers cannot process images (H, W, C) of {tuple(shape[1:])}: {reason[:300]}"
            ) from error
    output = graph.outputs[0]
    output = output.op.inputs[0] if output.op.type == "Identity" else output
    names = {id(variable.value.handle): name for name, variable in variables.items()}
    handles: dict[str, str] = {}
    constants: dict[str, Any] = {}
    for external, internal in graph.captures:
        if id(external) in names:
            handles[internal.name] = names[id(external)]
        elif external.dtype != tensorflow.resource:
            constants[internal.name] = external.numpy()
    seeds, updates = {}, []
    for op in graph.get_operations():
        is_resource = bool(op.inputs) and op.inputs[0].dtype == tensorflow.resource
        if is_resource and op.type == "ReadVariableOp" and op.inputs[0].name not in handles:
            seeds[op.outputs[0].name] = op.outputs[0].dtype
        elif is_resource and op.type.startswith("Assign") and op.inputs[0].name in handles:
            updates.append(op.name)
    definition = definitions.extract(
        graph.as_graph_def(), [output.op.name, *updates], {graph.inputs[0].name, *handles, *seeds, *constants}
    )
    kept = {node.name for node in definition.node}
    used = {name.lstrip("^").partition(":")[0] for node in definition.node for name in node.input}

    def is_used(name: str) -> bool:
        return name.partition(":")[0] in used

    return Traced(
        definition,
        graph.inputs[0].name,
        output.name,
        {name: variable for name, variable in handles.items() if is_used(name)},
        {name: dtype for name, dtype in seeds.items() if is_used(name)},
        {name: value for name, value in constants.items() if is_used(name)},
        [name for name in updates if name in kept],
    )


@contextmanager
def _scopes(model: Any) -> Iterator[None]:
    """Name the operations of each layer by its path, and use the form of it that descriptions know (keras_models.forms)."""
    wrapped = []
    calls: dict[str, int] = {}
    rows = rows_of_pixels(model)
    for path, layer in [("", model), *layers_of(model)]:
        if "call" not in vars(layer):
            layer.call = _within(path, layer, calls, (lambda inputs: inputs) if layer is rows else form_of(layer))
            wrapped.append(layer)
    try:
        yield
    finally:
        for layer in wrapped:
            del layer.call


def rows_of_pixels(model: Any) -> Any:
    """Return the layer that reshapes the image of scores to a row for each pixel, (H * W, C), at the end of a model; else None.

    Only activations may follow it. Without it the output is the image, and the activations of its channels are the same.
    """
    operation = model.outputs[0]._keras_history.operation
    while type(operation).__name__ in ("Activation", "Softmax"):
        operation = operation.input._keras_history.operation
    if type(operation).__name__ != "Reshape" or len(operation.input.shape) != 4 or len(operation.output.shape) != 3:
        return None
    height, width, channels = operation.input.shape[1:]
    pixels, last = operation.output.shape[1:]
    is_image = last == channels and (pixels is None or height is None or width is None or pixels == height * width)
    return operation if is_image else None


def _within(path: str, layer: Any, calls: dict[str, int], form: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return the method ``call`` of a layer that creates operations in a scope of its path, numbered if it is called again.

    ``form`` is another computation in its place.
    """
    call = form or layer.call

    def scoped(*arguments: Any, **named: Any) -> Any:
        number = calls.get(path, 0)
        calls[path] = number + 1
        scope = f"{path}_{number}/" if number and path else f"{path}/" if path else None
        with tf.name_scope(scope):
            return call(*arguments, **named)

    return scoped
