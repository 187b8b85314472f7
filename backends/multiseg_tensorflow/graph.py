"""A user's network as a TensorFlow graph, for one image size and one of DIGITS' stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow

from multiseg.errors import ModelError
from multiseg_tensorflow import digits
from multiseg_tensorflow.lowering import lower

tf = tensorflow.compat.v1

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class UserGraph:
    """The graph and its handles. ``y``, ``loss`` and ``losses`` are only there where the stage has labels.

    ``loss`` is what is reported, with the regularisation terms; ``losses`` are (loss, variables) pairs to take gradients of.
    """

    graph: Any
    tower: digits.Tower
    x: Any
    output: Any
    variables: dict[str, Any]
    y: Any = None
    loss: Any = None
    losses: list[tuple[Any, list[Any]]] = field(default_factory=list)
    lowered: list[str] = field(default_factory=list)


def build(
    path: Path, model: type[digits.Tower], stage: str, shape: Shape, label_shape: Shape, loss: str | None, seed: int, lowering: bool
) -> UserGraph:
    """Build the graph of ``model`` for images (H, W, C); ``loss`` overrides the model's own.

    Raises ModelError where the user's file fails, or its output is not of the label's shape.
    """
    graph = tf.Graph()
    y = None
    with graph.as_default():
        tf.set_random_seed(seed)
        x = tf.placeholder(tf.float32, [None, *shape], "x")
        if stage != digits.STAGE_INF:
            y = tf.placeholder(tf.float32, [None, *label_shape], "y")
        tower = model(x, y, list(shape), None, stage == digits.STAGE_TRAIN, stage == digits.STAGE_INF)
        with digits.blaming(path):
            with tf.variable_scope(digits.GraphKeys.MODEL):
                output = tower.inference  # type: ignore[attr-defined]
            _check_output(path, output, label_shape if y is not None else None)
            with tf.name_scope(digits.GraphKeys.LOSS):
                losses = [] if y is None else [_loss(loss, output, y)] if loss else _own_losses(path, tower)
        total = None
        if losses:
            regularisation = [] if loss else tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
            total = tf.add_n([value for value, _ in losses] + regularisation)
    names: list[str] = []
    if lowering:
        graph, lowered = lower(graph)
        names = [_layer(op) for op in lowered]
    # the same tensors and variables in what may now be another graph
    with graph.as_default():
        variables = {variable.op.name: variable for variable in tf.global_variables()}

    def same(tensor: Any) -> Any:
        return None if tensor is None else graph.get_tensor_by_name(tensor.name)

    return UserGraph(
        graph=graph,
        tower=tower,
        x=same(x),
        y=same(y),
        output=same(output),
        loss=same(total),
        losses=[(same(value), [variables[variable.op.name] for variable in part]) for value, part in losses],
        variables={_neutral_name(name): variable for name, variable in variables.items()},
        lowered=names,
    )


def _check_output(path: Path, output: Any, label_shape: Shape | None) -> None:
    if not isinstance(output, tf.Tensor):
        raise ModelError(f"{path}: inference returns a {type(output).__name__}; it must return one tensor, the output images")
    shape = output.shape.as_list() if output.shape.rank is not None else None
    if shape is None or len(shape) != 4:
        raise ModelError(f"{path}: inference returns a tensor of shape {shape}; it must return images (N, H, W, C)")
    if label_shape is not None and any(a is not None and a != b for a, b in zip(shape[1:], label_shape)):  # noqa: B905
        raise ModelError(
            f"{path}: inference returns images (H, W, C) of {tuple(shape[1:])}, the dataset's labels are {tuple(label_shape)}; "
            "change the strides, paddings or filters of its layers so that they agree"
        )


def _own_losses(path: Path, tower: Any) -> list[tuple[Any, list[Any]]]:
    loss = tower.loss
    parts = loss if isinstance(loss, list) else [{"loss": loss, "vars": tf.trainable_variables()}]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("loss"), tf.Tensor) or not part.get("vars"):
            raise ModelError(f"{path}: loss must return a tensor, or a list of {{'loss': tensor, 'vars': variables}}")
        if part["loss"].shape.rank != 0:
            raise ModelError(f"{path}: loss has shape {part['loss'].shape}; reduce it to one number, e.g. with tf.reduce_mean")
    return [(part["loss"], list(part["vars"])) for part in parts]


def _loss(name: str, output: Any, y: Any) -> tuple[Any, list[Any]]:
    difference = output - y
    size = tf.abs(difference)
    small = tf.minimum(size, 1.0)
    elements = {
        "l1": lambda: size,
        "l2": lambda: tf.square(difference),
        "smooth_l1": lambda: small * (size - 0.5 * small),  # d^2 / 2 up to 1, |d| - 1/2 from there
    }
    return tf.reduce_mean(elements[name]()), tf.trainable_variables()


def _neutral_name(name: str) -> str:
    """``model/conv1/weights`` to ``conv1.weight``, whichever of TensorFlow's layer libraries made the variable."""
    *layer, last = name.split("/")
    if layer[:1] == [digits.GraphKeys.MODEL]:
        del layer[0]
    kinds = {"weights": "weight", "kernel": "weight", "biases": "bias"}
    return ".".join([*layer, kinds.get(last, last)])


def _layer(convolution: Any) -> str:
    """The layer whose kernel a convolution reads."""
    source = convolution.inputs[1].op
    while source.type in ("Identity", "ReadVariableOp"):
        source = source.inputs[0].op
    return _neutral_name(source.name).rpartition(".")[0]
