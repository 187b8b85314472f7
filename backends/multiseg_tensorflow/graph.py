"""A user's network as a TensorFlow graph, for one image size and one of DIGITS' stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow
import tf_slim

from multiseg.errors import ModelError
from multiseg_tensorflow import digits
from multiseg_tensorflow.layers import layer_of, layer_tensors, neutral_name
from multiseg_tensorflow.lowering import lower
from multiseg_tensorflow.randomness import depend_on_seed
from multiseg_tensorflow.user_file import blaming

tf = tensorflow.compat.v1

Shape = tuple[int, int, int]  # H, W, C


@dataclass(frozen=True)
class UserGraph:
    """A graph and its handles. In inference it has no ``y`` and ``loss``.

    ``seed`` is what its random numbers depend on (multiseg_tensorflow.randomness), None where it does not train.
    ``loss`` is what is reported, with the regularisation terms; ``losses`` are pairs of a loss to take gradients of and
    its variables. ``variables`` are named neutrally; ``lowered`` are the layers computed as one matrix
    product; ``layers`` are the tensors that layers make.
    """

    graph: Any
    tower: digits.Tower
    x: Any
    y: Any
    seed: Any
    output: Any
    loss: Any
    losses: list[tuple[Any, list[Any]]]
    variables: dict[str, Any]
    lowered: list[str]
    layers: dict[str, Any]


def build(
    path: Path, model: type[digits.Tower], shape: Shape, label_shape: Shape | None, *,
    training: bool, loss: str | None, seed: int, lowering: bool,
) -> UserGraph:  # fmt: skip
    """The graph of ``model`` from the file ``path``, for inference where ``label_shape`` is None.

    ``loss`` (``l1``, ``smooth_l1``, ``l2``) overrides the model's own. Raises ModelError where the user's file fails,
    or its output is not of the labels' shape.
    """
    graph = tf.Graph()
    with graph.as_default():
        tf.set_random_seed(seed)
        x = tf.placeholder(tf.float32, [None, *shape], "x")
        y = None if label_shape is None else tf.placeholder(tf.float32, [None, *label_shape], "y")
        with blaming(path):
            tower: Any = model(x, y, list(shape), None, training, y is None)
            with tf.variable_scope(digits.GraphKeys.MODEL), _batch_norm_without_keras():
                output = tower.inference
            _check_output(path, output, label_shape)
            with tf.name_scope(digits.GraphKeys.LOSS):
                losses = [] if y is None else [_loss(loss, output, y)] if loss else _own_losses(path, tower)
        # DIGITS reports the regularisation terms and takes no gradient of them
        terms = [] if loss else tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
        reported = tf.add_n([value for value, _ in losses] + terms) if losses else None

        layers = layer_tensors(x, output)

    graph, convolutions = lower(graph) if lowering else (graph, [])
    with graph.as_default():
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        step_seed = depend_on_seed(graph, seed) if training else None

    def here(tensor: Any) -> Any:
        """The tensor in what may now be another graph."""
        return None if tensor is None else graph.get_tensor_by_name(tensor.name)

    return UserGraph(
        graph=graph,
        tower=tower,
        x=here(x),
        y=here(y),
        seed=step_seed,
        output=here(output),
        loss=here(reported),
        losses=[(here(value), [variables[variable.op.name] for variable in part]) for value, part in losses],
        variables={neutral_name(name): variable for name, variable in variables.items()},
        lowered=[str(layer_of(convolution)) for convolution in convolutions],
        layers={name: here(tensor) for name, tensor in layers.items()},
    )


def _batch_norm_without_keras() -> Any:
    """Makes tf_slim compute batch normalisation itself, as it does for any but its usual collection of updates.

    For that one it calls TensorFlow's old layer, which needs Keras 2; a list of the one name is not the name.
    """
    return tf_slim.arg_scope([tf_slim.batch_norm], updates_collections=[tf.GraphKeys.UPDATE_OPS])


def _check_output(path: Path, output: Any, label_shape: Shape | None) -> None:
    if not isinstance(output, tf.Tensor) or output.shape.rank != 4:
        raise ModelError(f"{path}: inference returns {output}; it must return one tensor of images, (N, H, W, C)")
    if label_shape is not None and not output.shape[1:].is_compatible_with(label_shape):
        made = tuple(output.shape.as_list()[1:])
        raise ModelError(
            f"{path}: inference returns images (H, W, C) of {made}, the labels are {tuple(label_shape)}; change "
            "strides, paddings or filters of its layers so that they agree"
        )


def _own_losses(path: Path, tower: Any) -> list[tuple[Any, list[Any]]]:
    loss = tower.loss
    parts = loss if isinstance(loss, list) else [{"loss": loss, "vars": tf.trainable_variables()}]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("loss"), tf.Tensor) or "vars" not in part:
            raise ModelError(f"{path}: loss must return a tensor, or a list of {{'loss': tensor, 'vars': variables}}")
        if part["loss"].shape.rank != 0:
            raise ModelError(
                f"{path}: loss has the shape {part['loss'].shape}; reduce it to one number, e.g. with tf.reduce_mean"
            )
    return [(part["loss"], list(part["vars"])) for part in parts]


def _loss(name: str, output: Any, y: Any) -> tuple[Any, list[Any]]:
    size = tf.abs(output - y)
    if name == "l2":
        size = tf.square(size)
    elif name == "smooth_l1":
        small = tf.minimum(size, 1.0)
        size = small * (size - 0.5 * small)  # d^2 / 2 up to 1, |d| - 1/2 from there
    return tf.reduce_mean(size), tf.trainable_variables()
