"""A user's network as a TensorFlow graph, for one image size and one of DIGITS' stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow

from multiseg.errors import ModelError
from multiseg.network import CLASSES, LabelKind
from multiseg_tensorflow import digits, dropout
from multiseg_tensorflow.describing.layers import Layers, read, with_dropouts
from multiseg_tensorflow.files import NetworkFile
from multiseg_tensorflow.losses import Loss
from multiseg_tensorflow.lowering import lower
from multiseg_tensorflow.randomness import depend_on_seed
from multiseg_tensorflow.user_file import blaming
from multiseg_tensorflow.weights import Weight, neutral_name, plain

tf = tensorflow.compat.v1

Shape = tuple[int, int, int]  # H, W, C


@dataclass(frozen=True)
class UserGraph:
    """A graph and its handles. In inference it has no ``y`` and ``loss``.

    ``seed`` is what its random numbers depend on (multiseg_tensorflow.randomness), None where it does not train.
    ``loss`` is what is reported, with the regularisation terms; ``losses`` are pairs of a loss to take gradients of and
    its variables. ``variables`` are named neutrally, and ``weights`` say how their arrays become neutral; ``lowered`` are
    the layers computed as one matrix product; ``layers`` are what layers make.
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
    weights: dict[str, Weight]
    lowered: list[str]
    layers: dict[str, Any]


def read_layers(file: NetworkFile, shape: Shape, dropouts: bool = False) -> Layers:
    """The layers of a network file at an image size, as it predicts; with the dropout that it trains with, where asked for.

    Raises ModelError where the file fails.
    """
    with tf.Graph().as_default():
        x, output = _inference(file, shape, None)
        layers = read(x, output)
    if not dropouts:
        return layers
    with tf.Graph().as_default() as graph:
        _inference(file, shape, output.shape)
        return with_dropouts(layers, dropout.find(graph))


def _inference(file: NetworkFile, shape: Shape, label_shape: Any) -> tuple[Any, Any]:
    """Images, one at a time so that all shapes are known, and what the network makes of them; trained where it has labels."""
    x = tf.placeholder(tf.float32, [1, *shape], "x")
    with blaming(file.path):
        y = None if label_shape is None else tf.placeholder(tf.float32, label_shape, "y")
        tower = file.tower(x, y, list(shape), None, y is not None, y is None)
        output = _output(file.path, tower)
    return x, output


def build(
    file: NetworkFile, shape: Shape, label_shape: Shape | None, layers: Layers, *,
    training: bool, loss: Loss | None, labels: LabelKind, seed: int, lowering: bool, device: str,
) -> UserGraph:  # fmt: skip
    """The graph of a network file, for inference where ``label_shape`` is None; ``layers`` are those of :func:`read_layers`.

    ``loss`` (of multiseg_tensorflow.losses) overrides the model's own; ``labels`` is how the network reads them. Raises
    ModelError where the user's file fails, or its output does not fit the labels.
    """
    path = file.path
    graph = tf.Graph()
    with graph.as_default():
        tf.set_random_seed(seed)
        x = tf.placeholder(tf.float32, [None, *shape], "x")
        y = None if label_shape is None else tf.placeholder(tf.float32, [None, *label_shape], "y")
        with blaming(path):
            tower: Any = file.tower(x, _labels(y, loss), list(shape), None, training, y is None)
            output = _output(path, tower)
            _check_output(path, output, label_shape, labels)
            tower.label_kind = labels
            with tf.name_scope(digits.GraphKeys.LOSS):
                losses = [] if y is None else _own_losses(path, tower) if loss is None else [_named(loss, output, y)]
        # DIGITS reports the regularisation terms and takes no gradient of them
        terms = [] if loss else tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
        reported = tf.add_n([value for value, _ in losses] + terms) if losses else None
        if output.shape.rank == 2:  # a vector for each image: as an image of one pixel
            output = output[:, tf.newaxis, tf.newaxis, :]

    graph, convolutions = lower(graph, device) if lowering else (graph, [])
    with graph.as_default():
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        weights = variables_of(variables, layers.weights)
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
        variables={weights[name].name: variables[name] for name in weights},
        weights={weight.name: weight for weight in weights.values()},
        lowered=[weights[name].name.rpartition(".")[0] for name in map(_kernel, convolutions) if name in weights],
        layers=_layer_tensors(graph, layers),
    )


def variables_of(variables: Mapping[str, Any], known: Mapping[str, Weight]) -> dict[str, Weight]:
    """How each variable becomes neutral: as its layer has it, else by its own name and shape."""
    found = {name: known[name] for name in known if name in variables}
    taken = {weight.name for weight in found.values()}
    for name, variable in variables.items():
        if name not in found and variable.dtype.base_dtype.is_floating:
            neutral = neutral_name(name)
            neutral = name.replace("/", ".") if neutral in taken else neutral
            taken.add(neutral)
            found[name] = plain(neutral, variable.shape.as_list())
    return found


def _kernel(convolution: Any) -> str:
    """The variable whose value a convolution takes as its kernel."""
    source = convolution.inputs[1].op
    while source.type in ("Identity", "ReadVariableOp"):
        source = source.inputs[0].op
    return str(source.name)


def _layer_tensors(graph: Any, layers: Layers) -> dict[str, Any]:
    """What each layer makes, where this graph has it too, to be fetched all at once.

    Behind identities: with oneDNN, TensorFlow fuses a convolution with a LeakyReLU or a swish that alone takes its result
    even where that result is fetched, which then is not there. Where they are not fetched they cost nothing.
    """
    found = {}
    with graph.as_default(), tf.name_scope("layers"):
        for name, tensor in layers.tensors.items():
            try:
                found[name] = tf.identity(graph.get_tensor_by_name(tensor.name))
            except KeyError:
                continue
    return found


def _output(path: Path, tower: Any) -> Any:
    with tf.variable_scope(digits.GraphKeys.MODEL):
        output = tower.inference
    if not isinstance(output, tf.Tensor) or output.shape.rank not in (2, 4):
        raise ModelError(
            f"{path}: inference returns {output}; it must return one tensor of images, (N, H, W, C), or of vectors, (N, C)"
        )
    return output


def _labels(y: Any, loss: Loss | None) -> Any:
    """Return labels as DIGITS gives them to its files: those of one pixel are class indices (N,)."""
    if y is None or loss or y.shape.as_list()[1:] != [1, 1, 1]:
        return y
    return tf.cast(tf.reshape(y, [-1]), tf.int64)


def _check_output(path: Path, output: Any, label_shape: Shape | None, labels: LabelKind) -> None:
    """Raise ModelError unless the output has the labels' shape or, for class indices, a vector of scores for each."""
    if label_shape is None or tuple(label_shape) == (1, 1, 1):
        return
    made = tuple(output.shape.as_list()[1:])
    wanted = (*label_shape[:2], None) if labels == CLASSES else label_shape
    if not output.shape[1:].is_compatible_with(wanted):
        raise ModelError(
            f"{path}: inference returns {'images (H, W, C)' if len(made) == 3 else 'vectors'} of {made}, the labels are "
            f"{tuple(label_shape)} (H, W, C); change strides, paddings or filters of its layers so that they agree"
        )


def _named(loss: Loss, output: Any, y: Any) -> tuple[Any, list[Any]]:
    """Return the mean of a named loss over all elements, and all variables."""
    return tf.reduce_mean(loss(output, y)), tf.trainable_variables()


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
