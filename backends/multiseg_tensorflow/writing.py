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


def write(path: str, weights: Mapping[str, Array], network: str | None, input_shape: list[int] | None) -> list[str]:
    """See multiseg.model_files; ``path`` is the checkpoint's prefix.

    Where the network is known, its graph as it predicts is written beside the arrays (``.meta``).
    """
    try:
        if network is not None:
            return _write_network(path, weights, Path(network), input_shape)
        _write_names(path, weights)
        return []
    except tf.errors.OpError as error:
        raise ModelError(f"{path}: TensorFlow cannot write it: {first_line(error)}") from error


def _write_network(path: str, weights: Mapping[str, Array], network: Path, input_shape: list[int] | None) -> list[str]:
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
            _ = file.tower(x, None, list(shape), None, False, True).inference
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        layouts = variables_of(variables, known)
        given = {name: layout for name, layout in layouts.items() if layout.name in weights}
        check_weights(str(network), {layout.name: layout.shape for layout in given.values()}, weights)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for name, layout in given.items():
                variable = variables[name]
                variable.load(layout.own(weights[layout.name], variable.shape.as_list()), session)
            tf.train.Saver(allow_empty=True).save(session, path, write_state=False)
    return [layout.name for name, layout in layouts.items() if name not in given]


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
