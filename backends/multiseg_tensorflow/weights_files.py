"""Neutral weights in TensorFlow's files: read, and written as TensorFlow 1's Saver does. Runs in the backend's process."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow

from multiseg.errors import ModelError, setting
from multiseg.network import Array, check_weights
from multiseg_tensorflow import digits, files, kinds, stored
from multiseg_tensorflow.graph import read_layers, variables_of
from multiseg_tensorflow.user_file import blaming, first_line
from multiseg_tensorflow.weights import Weight, depthwise, neutral_name, plain

OBJECT = re.compile(r"(.*)/\.ATTRIBUTES/VARIABLE_VALUE$")  # TensorFlow 2 names values by the objects that hold them
NO_WEIGHT = re.compile(  # what optimisers and counters keep
    r"(^|/)(global_step|save_counter|_CHECKPOINTABLE_OBJECT_GRAPH|beta\d_power|Adam(_\d+)?|Momentum(_\d+)?|RMSProp(_\d+)?|"
    r"Adagrad(_\d+)?|Adadelta(_\d+)?|Ftrl(_\d+)?|ExponentialMovingAverage|optimizer|_optimizer|\.OPTIMIZER_SLOT)(/|$)"
)


def read_graph(path: Path) -> dict[str, Any]:
    """Weights that a graph's own file holds. Raises ModelError naming it, also where it does not say its images' size."""
    file = files.load(path)
    if file.shape is None:
        raise ModelError(
            f"{path}: does not say how large its images are, on which its layers depend; export it with a size"
        )
    known = read_layers(file, file.shape).weights
    return {weight.name: weight.to_neutral(file.weights[name]).astype(np.float32) for name, weight in known.items()}


def read(path: Path, network: Path | None = None, shape: tuple[int, int, int] | None = None) -> dict[str, Any]:
    """Weights of the checkpoint that ``path`` names, by ``layer.part``. Raises ModelError naming it.

    They become neutral as the ``network`` file uses them at images of ``shape`` (H, W, C), where it is given; else as a graph
    beside the checkpoint (``.meta``) does whose input and output can be told; else as their names and shapes say.
    """
    prefix = kinds.checkpoint_prefix(path)
    if prefix is None:
        raise ModelError(f"{path}: is no TensorFlow checkpoint; name its prefix, its .index file or its folder")
    arrays = {
        name: value
        for name, value in stored.checkpoint(prefix).items()
        if np.issubdtype(value.dtype, np.floating) and not NO_WEIGHT.search(name)
    }
    known = _by_network(network, shape) if network and shape else _by_graph(prefix)
    if known and all(name in arrays for name in known):
        found = {weight.name: weight.to_neutral(arrays[name]).astype(np.float32) for name, weight in known.items()}
        # what no layer has as its own, such as a kernel that is split for groups: by its name and shape
        rest = {neutral_name(name): value for name, value in arrays.items() if name not in known}
        return {
            **{name: plain(name, value.shape).to_neutral(value).astype(np.float32) for name, value in rest.items()},
            **found,
        }
    return _by_name(prefix, arrays)


def _by_graph(prefix: Path) -> dict[str, Weight]:
    meta = prefix.with_name(prefix.name + ".meta")
    if not meta.is_file():
        return {}
    try:
        file = files.load(meta)
        weights = read_layers(file, file.shape).weights if file.shape else {}
    except ModelError:  # e.g. a graph that trains, with several ends
        return {}
    return {name.partition("/")[2]: weight for name, weight in weights.items()}


def _by_network(network: Path, shape: tuple[int, int, int]) -> dict[str, Weight]:
    file = files.load(network)
    return {file.own_name(name): weight for name, weight in read_layers(file, shape).weights.items()}


def _by_name(prefix: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    weights: dict[str, Any] = {}
    for name, value in arrays.items():
        found = OBJECT.match(name)
        path = found[1] if found else name
        if found and re.search(r"(^|/|-)\d+(/|$)", path):
            raise ModelError(
                f"{prefix}: is a checkpoint of a model whose layers are numbered, not named, as Keras does; export the model "
                "with model.export(FOLDER) and use that folder as network file"
            )
        neutral = neutral_name(path)
        layout = depthwise if re.search(r"depthwise_(weights|kernel)$", path) else plain
        weights[neutral if neutral not in weights else path.replace("/", ".")] = (
            layout(neutral, value.shape).to_neutral(value).astype(np.float32)
        )
    _check_dense(prefix, weights)
    if not weights:
        raise ModelError(f"{prefix}: this checkpoint holds no weights")
    return weights


def _check_dense(prefix: Path, weights: Mapping[str, Any]) -> None:
    """Whether the order of every dense layer's inputs can be told: not where they are a flattened image."""
    name = dense_over_image(weights)
    if name is not None:
        raise ModelError(
            f"{prefix}: {name} takes {weights[name].shape[1]} inputs, which seem to be a flattened image; the order of its axes "
            f"is the graph's alone: put {prefix.name}.meta of the network as it predicts beside the checkpoint"
        )


def dense_over_image(weights: Mapping[str, Any]) -> str | None:
    """A dense layer's weights whose inputs no other layer makes as such."""
    made = {value.shape[0] for value in weights.values() if value.ndim == 4}
    made |= {value.shape[1] for value in weights.values() if value.ndim == 4}
    made |= {value.shape[0] for value in weights.values() if value.ndim == 2}
    images = any(value.ndim == 4 for value in weights.values())
    return next(
        (name for name, value in weights.items() if images and value.ndim == 2 and value.shape[1] not in made), None
    )


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
            f"{network}: does not say how large its images are; give "
            f"{setting('input_shape', example='(channels, height, width)')}"
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
                    variable.load(layout.from_neutral(values[layout.name], variable.shape.as_list()), session)
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
            "axes in another order, which the network tells: give the network file that the weights are for, "
            f"{setting('network', example='FILE')}"
        )
    arrays = {}
    for name, value in weights.items():
        layout = plain(name, [value.shape[axis] for axis in _axes(value.ndim)])
        arrays[_own_name(path, name, weights)] = layout.from_neutral(value, layout.view)
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
            f"{path}: a checkpoint does not keep the name {name!r}; give the network file that the weights are for, "
            f"{setting('network', example='FILE')}"
        )
    return own
