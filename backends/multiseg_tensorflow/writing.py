"""Writing neutral weights as a checkpoint, as TensorFlow 1's Saver does. Runs in the backend's process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow

from multiseg.errors import ModelError
from multiseg.network import Array, check_weights
from multiseg_tensorflow import digits, files
from multiseg_tensorflow.graph import read_layers, variables_of
from multiseg_tensorflow.user_file import blaming, first_line
from multiseg_tensorflow.weights import neutral_name, plain
from multiseg_tensorflow.weights_files import NO_WEIGHT, dense_over_image

tf = tensorflow.compat.v1

# what TensorFlow's own layers call their variables
OWN = {"weight": "kernel", "bias": "bias", "running_mean": "moving_mean", "running_var": "moving_variance"}
OWN_OF_VECTORS = {**OWN, "weight": "gamma"}
OWN_OF_NORM = {**OWN_OF_VECTORS, "bias": "beta"}


def write(
    path: str,
    weights: Mapping[str, Array],
    network: str | None,
    input_shape: list[int] | None,
    others: Mapping[str, Array],
) -> dict[str, list[str]]:
    """See multiseg.model_files; ``path`` is the checkpoint's prefix.

    Where the network is known, its graph as it predicts is written beside the arrays (``.meta``).
    """
    try:
        if network is not None:
            return _write_network(path, weights, Path(network), input_shape, others)
        _write_names(path, weights)
        return {"taken": [], "started": []}
    except tf.errors.OpError as error:
        raise ModelError(f"{path}: TensorFlow cannot write it: {first_line(error)}") from error


def _write_network(
    path: str, weights: Mapping[str, Array], network: Path, input_shape: list[int] | None, others: Mapping[str, Array]
) -> dict[str, list[str]]:
    file = files.load(network)
    if input_shape is not None:
        channels, height, width = input_shape
    elif file.shape is not None:
        height, width, channels = file.shape
    else:
        raise ModelError(
            f"{network}: does not say how large its images are; give input_shape=(channels, height, width)"
        )
    shape = (height, width, channels)
    known = {file.own_name(name): weight for name, weight in read_layers(file, shape).weights.items()}
    with tf.Graph().as_default():
        tf.set_random_seed(0)
        x = tf.placeholder(tf.float32, [None, *shape], "x")
        scope = contextlib.nullcontext() if file.plain else tf.variable_scope(digits.GraphKeys.MODEL)
        with blaming(network), scope:
            output = file.tower(x, None, list(shape), None, False, True).inference
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        layouts = variables_of(variables, known)
        shapes = {layout.name: layout.shape for layout in layouts.values()}
        taken = [
            name for name in shapes if name not in weights and name in others and others[name].shape == shapes[name]
        ]
        values = {**weights, **{name: others[name] for name in taken}}
        check_weights(str(network), {name: shape for name, shape in shapes.items() if name in values}, values)
        rest = {name: layout.name for name, layout in layouts.items() if layout.name not in values}
        _check_unused(network, output, rest)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for name, layout in layouts.items():
                if name not in rest:
                    variable = variables[name]
                    variable.load(layout.own(values[layout.name], variable.shape.as_list()), session)
            tf.train.Saver(allow_empty=True).save(session, path, write_state=False)
    return {"taken": taken, "started": list(rest.values())}


def _check_unused(network: Path, output: Any, rest: Mapping[str, str]) -> None:
    """Whether variables without a value lead to no output: a description does not tell of every one that does."""
    ahead, reached = [output.op], set()
    while ahead:
        op = ahead.pop()
        if op.name not in reached:
            reached.add(op.name)
            ahead.extend([*(tensor.op for tensor in op.inputs), *op.control_inputs])
    used = [own for name, own in rest.items() if name in reached]
    if used:
        raise ModelError(
            f"{network}: uses {used[0]!r} in a way that its description does not tell, and there are no weights of this name and "
            "shape; rename the layer in the weights, or start a job from them (weights=FILE), which goes by names"
        )


def _write_names(path: str, weights: Mapping[str, Array]) -> None:
    dense = dense_over_image(weights)
    if dense is not None:
        raise ModelError(
            f"{path}: {dense} takes {weights[dense].shape[1]} inputs, which seem to be a flattened image; TensorFlow has its "
            "axes in another order, which the network tells: give the network file that the weights are for, network=FILE"
        )
    arrays = {}
    for name, value in weights.items():
        layout = plain(name, [value.shape[axis] for axis in _axes(value.ndim)])
        arrays[_own_name(path, name, weights)] = layout.own(value, layout.seen)
    with tf.Graph().as_default(), tf.Session() as session:
        fed = {tf.placeholder(tf.float32, value.shape): value for value in arrays.values()}
        names = list(arrays)
        session.run(
            tf.raw_ops.SaveV2(prefix=path, tensor_names=names, shape_and_slices=[""] * len(names), tensors=list(fed)),
            fed,
        )


def _axes(rank: int) -> Any:
    """Where the axes of TensorFlow's array are in the neutral one."""
    return np.argsort(plain("", [1] * rank).axes)


def _own_name(path: str, name: str, weights: Mapping[str, Array]) -> str:
    """A variable's name that reads back as this one."""
    layer, _, part = name.rpartition(".")
    normal = f"{layer}.running_mean" in weights
    words = OWN_OF_NORM if normal else OWN_OF_VECTORS if weights[name].ndim == 1 else OWN
    own = f"{layer}/{words.get(part, part)}"
    if part not in words or neutral_name(own) != name or NO_WEIGHT.search(own):
        raise ModelError(
            f"{path}: a checkpoint does not keep the name {name!r}; give the network file that the weights are for, network=FILE"
        )
    return own
