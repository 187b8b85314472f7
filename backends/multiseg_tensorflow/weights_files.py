"""Read neutral weights from TensorFlow's files, and write them in the format of TensorFlow 1's Saver.

Runs in the backend's worker process.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow

from multiseg.errors import ModelError, setting
from multiseg.network import Array, check_weights
from multiseg_tensorflow import digits, files, kinds, stored
from multiseg_tensorflow.graph import read_layers, weights_of
from multiseg_tensorflow.user_file import blaming, first_line
from multiseg_tensorflow.weights import Weight, depthwise, neutral_name, plain

OBJECT = re.compile(r"(.*)/\.ATTRIBUTES/VARIABLE_VALUE$")  # TensorFlow 2 names values by their path in the object graph
NO_WEIGHT = re.compile(  # state of optimisers, and counters
    r"(^|/)(global_step|save_counter|_CHECKPOINTABLE_OBJECT_GRAPH|beta\d_power|Adam(_\d+)?|Momentum(_\d+)?|RMSProp(_\d+)?|"
    r"Adagrad(_\d+)?|Adadelta(_\d+)?|Ftrl(_\d+)?|ExponentialMovingAverage|optimizer|_optimizer|\.OPTIMIZER_SLOT)(/|$)"
)


def read_graph(path: Path, input_shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Return the weights in a graph file, whose layouts may depend on the size of its images.

    ``input_shape`` (C, H, W) is used if the file does not specify the size. Raises ModelError that names the file, also if the
    size is unknown.
    """
    file = files.load(path)
    known = file.shape or (file.any_shape if input_shape is None else None)
    weights = read_layers(file, known or file.image_shape(input_shape)).weights
    return {weight.name: weight.to_neutral(file.weights[name]).astype(np.float32) for name, weight in weights.items()}


def read(path: Path, network: Path | None = None, shape: tuple[int, int, int] | None = None) -> dict[str, Any]:
    """Return the weights of the checkpoint ``path`` as float32, by ``layer.part``. Raises ModelError that names it.

    Their layouts are those of the ``network`` file's layers for images of ``shape`` (H, W, C) if it is specified; else those
    of a graph next to the checkpoint (``.meta``) if its input and output can be determined; else they follow from names and
    shapes.
    """
    prefix = kinds.checkpoint_prefix(path)
    if prefix is None:
        raise ModelError(f"{path}: is not a TensorFlow checkpoint; specify its prefix, its .index file or its folder")
    arrays = {
        name: value
        for name, value in stored.checkpoint(prefix).items()
        if np.issubdtype(value.dtype, np.floating) and not NO_WEIGHT.search(name)
    }
    layouts, folded, constants = _layouts(files.load(network), shape) if network and shape else _graph_layouts(prefix)
    arrays = {**constants, **arrays}
    if folded:  # weights that are computed from variables are not in the checkpoint
        layouts = {name: layout for name, layout in layouts.items() if name in arrays}
    if layouts and all(name in arrays for name in layouts):
        weights = {layout.name: layout.to_neutral(arrays[name]).astype(np.float32) for name, layout in layouts.items()}
        # arrays that are no layer's weight, such as a kernel that is split for groups: layout by name and shape
        rest = {neutral_name(name): value for name, value in arrays.items() if name not in layouts}
        return {
            **{name: plain(name, value.shape).to_neutral(value).astype(np.float32) for name, value in rest.items()},
            **weights,
        }
    return of_names(prefix, arrays)


Layouts = tuple[dict[str, Weight], bool, dict[str, Any]]


def _graph_layouts(prefix: Path) -> Layouts:
    """Return the layouts from the graph next to a checkpoint, see :func:`_layouts`; none without a usable graph."""
    meta = prefix.with_name(prefix.name + ".meta")
    if not meta.is_file():
        return {}, False, {}
    try:
        file = files.load(meta)
        return _layouts(file, file.shape) if file.shape else ({}, False, {})
    except ModelError:  # e.g. a training graph, with several outputs
        return {}, False, {}


def _layouts(file: files.NetworkFile, shape: tuple[int, int, int]) -> Layouts:
    """Return the layouts of a network file's layers by variable name for images of ``shape`` (H, W, C), whether weights are
    computed from variables, and the values of the weights that are constants of the graph, which a checkpoint does not have.
    """
    layouts = {file.own_name(name): weight for name, weight in read_layers(file, shape).weights.items()}
    values = {file.own_name(name): value for name, value in file.weights.items()}
    return layouts, bool(file.folded), {name: values[name] for name in file.constants if name in layouts}


def of_names(prefix: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the neutral weights for a checkpoint's arrays, with layouts by name and shape."""
    weights: dict[str, Any] = {}
    for name, value in arrays.items():
        match = OBJECT.match(name)
        path = match[1] if match else name
        if match and re.search(r"(^|/|-)\d+(/|$)", path):
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
        raise ModelError(f"{prefix}: this checkpoint contains no weights; use another one")
    return weights


def _check_dense(prefix: Path, weights: Mapping[str, Any]) -> None:
    """Raise ModelError if a dense layer seems to take a flattened image, because the order of its inputs is unknown."""
    name = dense_over_image(weights)
    if name is not None:
        raise ModelError(
            f"{prefix}: {name} takes {weights[name].shape[1]} inputs, which seem to be a flattened image; only the graph "
            f"specifies the order of its axes: put {prefix.name}.meta of the inference network in the checkpoint's folder"
        )


def dense_over_image(weights: Mapping[str, Any]) -> str | None:
    """Return the name of a dense layer's weight that seems to take a flattened image, or None.

    That is the case if the network has convolutions, and no layer has as many outputs or channels as it has inputs.
    """
    sizes = {value.shape[0] for value in weights.values() if value.ndim == 4}
    sizes |= {value.shape[1] for value in weights.values() if value.ndim == 4}
    sizes |= {value.shape[0] for value in weights.values() if value.ndim == 2}
    images = any(value.ndim == 4 for value in weights.values())
    return next(
        (name for name, value in weights.items() if images and value.ndim == 2 and value.shape[1] not in sizes), None
    )


tf = tensorflow.compat.v1
# names of the variables of TensorFlow's layers
KERNEL_NAMES = {"weight": "kernel", "bias": "bias", "running_mean": "moving_mean", "running_var": "moving_variance"}
VECTOR_NAMES = {**KERNEL_NAMES, "weight": "gamma"}
NORM_NAMES = {**VECTOR_NAMES, "bias": "beta"}


def write(
    path: str,
    weights: Mapping[str, Array],
    network: str | None,
    input_shape: list[int] | None,
    others: Mapping[str, Array],
) -> dict[str, list[str]]:
    """Write neutral weights as a checkpoint with the prefix ``path``, see multiseg.model_files.

    If ``network`` is specified, its inference graph is written too (``.meta``).
    """
    try:
        if network is not None:
            return _write_network(path, weights, Path(network), input_shape, others)
        _write_by_name(path, weights)
        return {"taken": [], "started": []}
    except tf.errors.OpError as error:
        raise ModelError(f"{path}: TensorFlow cannot write it: {first_line(error)}") from error


def _write_network(
    path: str, weights: Mapping[str, Array], network: Path, input_shape: list[int] | None, others: Mapping[str, Array]
) -> dict[str, list[str]]:
    """Write the variables of a network with its graph; return the names taken from ``others`` and those initialised."""
    file = files.load(network)
    if file.folded:
        raise ModelError(
            f"{network}: computes weights from its variable {min(file.folded)}, whose value does not follow from the weights; "
            "write another format, or freeze the graph"
        )
    shape = file.image_shape(input_shape)
    layer_weights = {file.own_name(name): weight for name, weight in read_layers(file, shape).weights.items()}
    with tf.Graph().as_default():
        tf.set_random_seed(0)
        x = tf.placeholder(tf.float32, [None, *shape], "x")
        scope = contextlib.nullcontext() if file.plain else tf.variable_scope(digits.GraphKeys.MODEL)
        with blaming(network), scope:
            made = file.tower(x, None, list(shape), None, False, True).inference
        outputs = made.values() if isinstance(made, dict) else made if isinstance(made, (list, tuple)) else [made]
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        layouts = weights_of(variables, layer_weights)
        shapes = {layout.name: layout.shape for layout in layouts.values()}
        taken = [
            name for name in shapes if name not in weights and name in others and others[name].shape == shapes[name]
        ]
        values = {**weights, **{name: others[name] for name in taken}}
        check_weights(str(network), {name: shape for name, shape in shapes.items() if name in values}, values)
        rest = {name: layout.name for name, layout in layouts.items() if layout.name not in values}
        if not file.outputs:
            _check_unused(network, list(outputs), rest)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for name, layout in layouts.items():
                if name not in rest:
                    variable = variables[name]
                    variable.load(layout.from_neutral(values[layout.name], variable.shape.as_list()), session)
            kept = [variable for name, variable in variables.items() if name not in rest] if file.outputs else None
            tf.train.Saver(kept, allow_empty=True).save(session, path, write_state=False)
    return {"taken": taken, "started": [] if file.outputs else list(rest.values())}


def _check_unused(network: Path, outputs: Sequence[Any], rest: Mapping[str, str]) -> None:
    """Raise ModelError if an output depends on a variable without a value; the layers do not cover every such variable.

    ``rest`` maps the names of the operations of these variables to their neutral names.
    """
    waiting, visited = [output.op for output in outputs], set()
    while waiting:
        op = waiting.pop()
        if op.name not in visited:
            visited.add(op.name)
            waiting.extend([*(tensor.op for tensor in op.inputs), *op.control_inputs])
    used = [neutral for name, neutral in rest.items() if name in visited]
    if used:
        raise ModelError(
            f"{network}: uses {used[0]!r} in a way that its description does not cover, and there are no weights with this name "
            "and shape; rename the layer in the weights, or start a job from them (weights=FILE), which matches weights by name"
        )


def _write_by_name(path: str, weights: Mapping[str, Array]) -> None:
    """Write weights as a checkpoint without a graph, under the variable names of TensorFlow's layers."""
    dense = dense_over_image(weights)
    if dense is not None:
        raise ModelError(
            f"{path}: {dense} takes {weights[dense].shape[1]} inputs, which seem to be a flattened image; TensorFlow flattens "
            "in another order of the axes, for which it needs the network: specify the network file of the weights, "
            f"{setting('network', example='FILE')}"
        )
    arrays = {}
    for name, value in weights.items():
        layout = plain(name, [value.shape[axis] for axis in _axes(value.ndim)])
        arrays[_variable_name(path, name, weights)] = layout.from_neutral(value, layout.view)
    with tf.Graph().as_default(), tf.Session() as session:
        feeds = {tf.placeholder(tf.float32, value.shape): value for value in arrays.values()}
        names = list(arrays)
        session.run(
            tf.raw_ops.SaveV2(prefix=path, tensor_names=names, shape_and_slices=[""] * len(names), tensors=list(feeds)),
            feeds,
        )


def _axes(rank: int) -> Any:
    """Return, for each axis of TensorFlow's array, its index in the neutral array."""
    return np.argsort(plain("", [1] * rank).axes)


def _variable_name(path: str, name: str, weights: Mapping[str, Array]) -> str:
    """Return the variable name from which :func:`read` derives the neutral ``name``. Raise ModelError if there is none."""
    layer, _, part = name.rpartition(".")
    is_norm = f"{layer}.running_mean" in weights
    part_names = NORM_NAMES if is_norm else VECTOR_NAMES if weights[name].ndim == 1 else KERNEL_NAMES
    variable = f"{layer}/{part_names.get(part, part)}"
    if part not in part_names or neutral_name(variable) != name or NO_WEIGHT.search(variable):
        raise ModelError(
            f"{path}: a checkpoint cannot store the name {name!r}; specify the network file of the weights, "
            f"{setting('network', example='FILE')}"
        )
    return variable
