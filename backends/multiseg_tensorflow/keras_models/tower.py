"""A Keras model as a network file: an object with the interface of the class `UserModel` of a DIGITS file."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow

from multiseg.errors import ModelError
from multiseg_tensorflow import digits, plain
from multiseg_tensorflow.keras_models import loading, tracing
from multiseg_tensorflow.tensors import INPUT_SCOPE

tf = tensorflow.compat.v1


@dataclass
class KerasFile:
    """A loaded model with its file. ``variables`` are those of floating-point numbers by name."""

    path: Path
    model: Any
    variables: dict[str, Any]
    _any_size: tuple[Any, dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def shape(self) -> list[int | None]:
        """The images' (H, W, C), with None for sizes that the model does not specify."""
        return list(self.model.inputs[0].shape[1:])

    @property
    def scopes(self) -> frozenset[str]:
        """The paths of the model's layers, with dots."""
        return frozenset(path.replace("/", ".") for path, _ in tracing.layers_of(self.model))

    def values(self) -> dict[str, Any]:
        """Return the values of the variables as arrays."""
        with loading.as_tensorflow_2():
            return {name: variable.numpy() for name, variable in self.variables.items()}

    def traced(self, shape: list[int | None], training: bool) -> tracing.Traced:
        """Return the graph for images of ``shape`` (N, H, W, C), of another size than the file's if the layers can process it."""
        fits = all(own in (None, size) for own, size in zip(self.shape, shape[1:]))  # noqa: B905 - Python 3.9
        if fits:
            return tracing.trace(self.path, self.model, self.variables, shape, training)
        if self._any_size is None:
            try:
                model = loading.load(self.path, any_size=True)
            except ModelError as error:
                raise ModelError(
                    f"{self.path}: its model is for images (H, W, C) of {tuple(self.shape)} only, but the images have "
                    f"{tuple(shape[1:])}; resize the images, or build the model for their size"
                ) from error
            self._any_size = model, tracing.variables_of(model)
        model, variables = self._any_size
        return tracing.trace(self.path, model, variables, shape, training)


def load(path: Path) -> KerasFile:
    """Load the Keras model in a file. Raises ModelError unless it has one input of images and one output."""
    model = loading.load(path)
    for side, tensors in (("input", model.inputs), ("output", model.outputs)):
        if len(tensors) != 1:
            names = ", ".join(str(tensor.name) for tensor in tensors)
            raise ModelError(
                f"{path}: its model has {len(tensors)} {side}s ({names}); multiseg reads models with one. Save a model of one, "
                "keras.Model(model.inputs, model.outputs[0])"
            )
    if len(model.inputs[0].shape) != 4 or model.inputs[0].shape[3] is None:
        raise ModelError(
            f"{path}: the input of its model has the shape {tuple(model.inputs[0].shape)}; multiseg reads models of images, "
            "(batch, height, width, channels)"
        )
    return KerasFile(path, model, tracing.variables_of(model))


class KerasTower(plain.GraphTower):
    """A Keras model with the interface of the class `UserModel` of a DIGITS file."""

    def __init__(self, file: KerasFile, *arguments: Any) -> None:
        digits.Tower.__init__(self, *arguments)
        self.file = file

    @digits.model_property
    def inference(self) -> Any:
        """The output of the model for ``x``: in training with its dropout and the statistics of batches."""
        file = self.file
        if file.shape[2] != self.input_shape[2]:
            raise ModelError(
                f"{file.path}: its model takes images of {file.shape[2]} channels, but the images have {self.input_shape[2]}; "
                "convert the images, or build the model for them"
            )
        traced = file.traced(self.x.shape.as_list(), self.is_training)
        variables = {
            name: tf.get_variable(
                name, tuple(variable.shape), tf.float32, tf.zeros_initializer(), trainable=bool(variable.trainable)
            )
            for name, variable in file.variables.items()
        }
        with tf.name_scope(INPUT_SCOPE):
            mapping = {traced.input: self.x}
            for name, dtype in traced.seeds.items():
                seed = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
                mapping[name] = tf.cast(seed, dtype)
            for name, value in traced.constants.items():
                mapping[name] = tf.constant(value)
        mapping.update({name: variables[variable].handle for name, variable in traced.handles.items()})
        output, *updates = tf.import_graph_def(
            traced.definition, mapping, [traced.output, *traced.updates], name=digits.GraphKeys.MODEL + "/"
        )
        for update in updates:
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
        return output


def tower(file: KerasFile) -> Any:
    """Return a callable with the signature of the class `UserModel` of a DIGITS file."""
    return functools.partial(KerasTower, file)
