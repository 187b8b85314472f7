"""Build the TensorFlow graph of a network for one image size, for training, validation or inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow

from multiseg.errors import ModelError, setting
from multiseg.network import CLASSES, LabelKind
from multiseg_tensorflow import digits, dropout, loss_terms
from multiseg_tensorflow.describing import crops
from multiseg_tensorflow.describing.layers import Layers, path_of, read
from multiseg_tensorflow.describing.training import mark_training_statistics, with_dropouts
from multiseg_tensorflow.files import NetworkFile
from multiseg_tensorflow.losses import Loss
from multiseg_tensorflow.lowering import FAULTS, RULES, lower
from multiseg_tensorflow.plain import GraphTower
from multiseg_tensorflow.randomness import depend_on_seed
from multiseg_tensorflow.tensors import in_control_flow, live_consumers, reachable
from multiseg_tensorflow.user_file import blaming
from multiseg_tensorflow.weights import Weight, neutral_name, plain

tf = tensorflow.compat.v1

Shape = tuple[int, int, int]  # H, W, C


@dataclass(frozen=True)
class UserGraph:
    """A graph and its tensors. ``y`` and ``loss`` are None in inference.

    ``reads_mode`` is whether the layers may be others in training, validation and inference (multiseg_tensorflow.digits.Tower).
    ``seed`` is the placeholder of the seed of its random numbers (multiseg_tensorflow.randomness), None without training.
    ``loss`` is the reported loss, including the regularisation terms, and ``terms`` are its terms outside training
    (multiseg_tensorflow.loss_terms); ``losses`` are pairs of a loss to differentiate and its variables. ``variables`` and
    ``weights`` (their layouts) are keyed by neutral name. ``lowered`` are the names of the layers that are computed as one matrix
    product; ``layers`` are the output tensors by layer name, empty in training, and ``dropouts`` those in it. ``classes`` is the
    number of classes if the loss takes class indices, and ``ignored`` those that it ignores, as far as they are known.
    """

    graph: Any
    tower: digits.Tower
    reads_mode: bool
    classes: int | None
    ignored: list[int]
    x: Any
    y: Any
    seed: Any
    output: Any
    loss: Any
    terms: list[loss_terms.Term]
    losses: list[tuple[Any, list[Any]]]
    variables: dict[str, Any]
    weights: dict[str, Weight]
    lowered: list[str]
    layers: dict[str, Any]
    dropouts: list[dropout.Dropout]


@contextmanager
def extended(graph: Any) -> Iterator[None]:
    """Make a graph the default one for adding operations, and finalise it: adding them by mistake is an error then."""
    graph._unsafe_unfinalize()
    try:
        with graph.as_default():
            yield
    finally:
        graph.finalize()


_last_read: dict[
    tuple[Any, ...], Layers
] = {}  # the layers that were read last, without their nodes, to load the same file


def read_layers(file: NetworkFile, shape: Shape, dropouts: bool = False) -> Layers:
    """Return the layers of a network file in inference for images of ``shape``; with the dropout of training if ``dropouts``.

    Without dropout, those of a file that was read just before are without ``nodes``, and a Crop may be a slice of numbers. Raises
    ModelError if the code in the file fails.
    """
    key = (file.identity and file.identity.digest, shape)
    if not dropouts and key in _last_read:
        return _last_read[key].cut(file.outputs)
    with tf.Graph().as_default():
        inputs, outputs, reads_mode = _inference(file, shape, None)
        layers = read(inputs, outputs, file.scopes)
    _last_read.clear()
    if file.identity is not None:
        _last_read[key] = replace(layers, nodes=[])  # which the dropout below changes
    if not dropouts:
        return layers.cut(file.outputs)
    fixed = _fixed_slices(file, shape, layers)
    if not reads_mode:  # the graph is the same in training
        mark_training_statistics(layers, layers)
    else:
        with tf.Graph().as_default() as graph:
            inputs, outputs, _ = _inference(file, shape, outputs[0][1].shape)
            training = read(inputs, outputs, file.scopes)
            mark_training_statistics(layers, training)
            layers = with_dropouts(layers, training, dropout.find(graph))
    crops.fix(layers.nodes, fixed)
    return layers.cut(file.outputs)


def _fixed_slices(file: NetworkFile, shape: Shape, layers: Layers) -> set[str]:
    """Return the tensors of the Crops that are none, or others, for images of another size, or all if the network takes none."""
    found = crops.references(layers.nodes)
    if not found:
        return set()
    try:
        with tf.Graph().as_default():
            inputs, outputs, _ = _inference(file, (*crops.other_size(*shape[:2]), shape[2]), None)
            others = crops.references(read(inputs, outputs, file.scopes).nodes)
    except ModelError:
        return set(found)
    return {tensor for tensor, reference in found.items() if others.get(tensor) != reference}


def _inference(file: NetworkFile, shape: Shape, label_shape: Any) -> tuple[list[Any], list[tuple[str, Any]], bool]:
    """Build the network in the default graph, for training if there is a label shape.

    Returns its inputs, its outputs with titles, and whether it may be another one in training and inference. The batch size is 1,
    so that all shapes are known.
    """
    x = tf.placeholder(tf.float32, [1, *shape], "x")
    with blaming(file.path, file.hint(shape)):
        y = None if label_shape is None else tf.placeholder(tf.float32, label_shape, "y")
        tower = file.tower(x, y, list(shape), file.classes, y is not None, y is None)
        outputs = _outputs(file.path, tower, initialised=False)
    inputs = [x, *_more_inputs([output for _, output in outputs], (x, y))]
    dependent = reachable([tensor.op for tensor in inputs], live_consumers)
    for _, output in outputs:
        if output.op not in dependent:
            raise ModelError(
                f"{file.path}: its output {output.name} does not depend on the images; return a tensor that is computed from them"
            )
    return inputs, outputs, tower.reads_mode


def _more_inputs(outputs: Sequence[Any], known: Sequence[Any]) -> list[Any]:
    """Return the placeholders of images and vectors besides ``known`` that the outputs depend on."""
    needed = reachable([output.op for output in outputs], lambda op: (tensor.op for tensor in op.inputs))
    tensors = [op.outputs[0] for op in outputs[0].graph.get_operations() if op in needed and op.type == "Placeholder"]
    return [
        tensor
        for tensor in tensors
        if not any(tensor is each for each in known)
        and tensor.shape.rank in (2, 4)
        and None not in tensor.shape.as_list()[1:]
        and tensor.dtype.is_floating
    ]


def build(
    file: NetworkFile, shape: Shape, label_shape: Shape | None, layers: Layers, *,
    training: bool, loss: Loss | None, labels: LabelKind, seed: int, lowering: bool, device: str, batch_size: int,
    ignore: int | None = None, initialised: bool = True,
) -> UserGraph:  # fmt: skip
    """Return the graph of a network file, for inference if ``label_shape`` is None; ``layers`` are from :func:`read_layers`.

    ``loss`` (of multiseg_tensorflow.losses) overrides the network's own; ``labels`` states how the network reads its labels, and
    ``ignore`` which class index does not count; ``batch_size`` is that of training. Unless ``initialised``, the initial values of
    the variables are not the file's, and have to be set.
    Raises ModelError if the code in the file fails, or the output does not match the labels.
    """
    path = file.path
    graph = tf.Graph()
    with graph.as_default():
        tf.set_random_seed(seed)
        if ignore is not None and labels == CLASSES:
            tf.add_to_collection(digits.IGNORED, ignore)
        x = tf.placeholder(tf.float32, [None, *shape], "x")
        y = None if label_shape is None else tf.placeholder(tf.float32, [None, *label_shape], "y")
        with blaming(path, file.hint(shape)):
            tower: Any = file.tower(x, _labels(y, loss), list(shape), file.classes, training, y is None)
            output = _output(path, tower, x.graph, layers, initialised)
            _check_output(path, output, label_shape, labels)
            reads_mode = tower.reads_mode
            tower.label_kind = labels
            with tf.name_scope(digits.GraphKeys.LOSS):
                losses = (
                    []
                    if y is None
                    else _own_losses(path, tower)
                    if loss is None
                    else [_named_loss(path, loss, output, y)]
                )
        # DIGITS reports the regularisation terms but does not differentiate them
        terms = [] if loss else tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
        class_losses = tf.get_collection(digits.CLASS_LOSSES)
        reported = tf.add_n([value for value, _ in losses] + terms) if losses else None
        pairs = [] if reported is None or training else loss_terms.of(reported, tf.shape(x)[0], batch_size)
        if output.shape.rank == 2:  # one vector for each image becomes an image of one pixel
            output = output[:, tf.newaxis, tf.newaxis, :]

    # images of any size are in batches of one, and without sizes little would be faster
    rules = () if not lowering else FAULTS if None in shape else RULES
    graph, convolutions = lower(graph, device, rules)
    with graph.as_default():
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        weights = weights_of(variables, layers.weights)
        step_seed = depend_on_seed(graph, seed) if training else None

    def in_graph(tensor: Any) -> Any:
        """Return the tensor of the same name in ``graph``, which lowering may have replaced."""
        return None if tensor is None else graph.get_tensor_by_name(tensor.name)

    return UserGraph(
        graph=graph,
        tower=tower,
        reads_mode=reads_mode,
        classes=min((classes for classes, _ in class_losses), default=None),
        ignored=sorted({value for _, ignored in class_losses for value in ignored}),
        x=in_graph(x),
        y=in_graph(y),
        seed=step_seed,
        output=in_graph(output),
        loss=in_graph(reported),
        terms=[(in_graph(total), in_graph(count)) for total, count in pairs],
        losses=[(in_graph(value), [variables[variable.op.name] for variable in part]) for value, part in losses],
        variables={weights[name].name: variables[name] for name in weights},
        weights={weight.name: weight for weight in weights.values()},
        lowered=[weights[name].name.rpartition(".")[0] for name in map(_kernel, convolutions) if name in weights],
        layers={} if training else layer_tensors(graph, layers.tensors),
        dropouts=dropout.find(graph) if training else [],
    )


def weights_of(variables: Mapping[str, Any], layer_weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Return the neutral layout of each floating-point variable: that of its layer, else by its own name and shape."""
    weights = {name: layer_weights[name] for name in layer_weights if name in variables}
    taken = {weight.name for weight in weights.values()}
    for name, variable in variables.items():
        if name not in weights and variable.dtype.base_dtype.is_floating:
            neutral = neutral_name(name)
            neutral = name.replace("/", ".") if neutral in taken else neutral
            taken.add(neutral)
            weights[name] = plain(neutral, variable.shape.as_list())
    return weights


def _kernel(convolution: Any) -> str:
    """Return the name of the variable that a convolution uses as its kernel."""
    source = convolution.inputs[1].op
    while source.type in ("Identity", "ReadVariableOp"):
        source = source.inputs[0].op
    return str(source.name)


def layer_tensors(graph: Any, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of the layers that exist in this graph, by their names, so that all can be fetched at once.

    Those in loops and branches are left out: they have no value, or several.
    They are copied by identities: with oneDNN, TensorFlow fuses a convolution with a LeakyReLU or Swish that is the only
    consumer of its output even if that output is fetched, and then cannot return it. Identities that are not fetched have
    no cost.
    """
    outputs = {}
    with graph.as_default(), tf.name_scope("layers"):
        for name, tensor in tensors.items():
            if in_control_flow(tensor.op):
                continue
            try:
                outputs[name] = tf.identity(graph.get_tensor_by_name(tensor.name))
            except KeyError:
                continue
    return outputs


def _zeros(getter: Any, *arguments: Any, **options: Any) -> Any:
    """Create a variable whose initial values are 0 instead of computed ones, which take most of its operations."""
    if options.get("shape") is not None and callable(options.get("initializer") or tf.zeros_initializer):
        options["initializer"] = tf.zeros_initializer()
    return getter(*arguments, **options)


def _outputs(path: Path, tower: Any, initialised: bool) -> list[tuple[str, Any]]:
    """Return the outputs with their keys in a dict, else an empty text. Raise ModelError unless all have rank 2 or 4."""
    with tf.variable_scope(digits.GraphKeys.MODEL, custom_getter=None if initialised else _zeros):
        made = tower.inference
    if isinstance(made, dict):
        outputs = [(str(key), value) for key, value in made.items()]
    else:
        outputs = [("", value) for value in (made if isinstance(made, (list, tuple)) and len(made) > 1 else [made])]
    for _, output in outputs:
        if isinstance(output, tf.Tensor) and isinstance(tower, GraphTower) and output.shape.rank not in (2, 4):
            raise ModelError(
                f"{path}: its output {path_of(output.op.name)} has the shape {output.shape}; it must be one of images, "
                "(N, H, W, C), or of vectors, (N, C). Save the model without the layers that reshape its scores"
            )
        if not isinstance(output, tf.Tensor) or output.shape.rank not in (2, 4):
            raise ModelError(
                f"{path}: inference returns {made}; it must return one tensor of images, (N, H, W, C), or of vectors, (N, C), or "
                "several of them"
            )
    return outputs


def _output(path: Path, tower: Any, graph: Any, layers: Layers, initialised: bool) -> Any:
    """Return the one output of the network for training and testing. Raise ModelError if there are several, or several inputs."""
    outputs = _outputs(path, tower, initialised)
    for what, names in (("inputs", [node.name for node in layers.sources]), ("outputs", layers.titles)):
        if len(names) > 1:
            raise ModelError(
                f"{path}: has {len(names)} {what} ({', '.join(names)}); training and testing want one; cut the network to one, "
                f"with {setting('outputs', example='NAME')}"
            )
    if len(outputs) == 1 and not layers.is_cut:
        return outputs[0][1]
    output = graph.get_tensor_by_name(layers.tensors[layers.output].name)
    if len(outputs) == 1 or tower.is_graph:  # a loss of several outputs knows them; any other one compares what remains
        tower.inference = output
    return output


def _labels(y: Any, loss: Loss | None) -> Any:
    """Return labels as DIGITS passes them to its files: labels of one pixel are class indices (N,)."""
    if y is None or loss or y.shape.as_list()[1:] != [1, 1, 1]:
        return y
    return tf.cast(tf.reshape(y, [-1]), tf.int64)


def _check_output(path: Path, output: Any, label_shape: Shape | None, labels: LabelKind) -> None:
    """Raise ModelError unless the output has the labels' shape or, for class indices, a vector of scores for each."""
    if label_shape is None or tuple(label_shape) == (1, 1, 1):
        return
    output_shape = tuple(output.shape.as_list()[1:])
    expected_shape = (*label_shape[:2], None) if labels == CLASSES else label_shape
    if not output.shape[1:].is_compatible_with(expected_shape):
        raise ModelError(
            f"{path}: inference returns {'images (H, W, C)' if len(output_shape) == 3 else 'vectors'} of shape "
            f"{output_shape}, but the labels are {tuple(label_shape)} (H, W, C); change strides, paddings or filters of its "
            "layers so that the shapes match"
        )


def _named_loss(path: Path, loss: Loss, output: Any, y: Any) -> tuple[Any, list[Any]]:
    """Return a named loss, and all trainable variables. Raises ModelError if it cannot compare output and labels."""
    try:
        return loss(output, y), tf.trainable_variables()
    except ModelError as error:
        raise ModelError(f"{path}: {error.template}") from None


def _own_losses(path: Path, tower: Any) -> list[tuple[Any, list[Any]]]:
    """Return the losses of the file with their variables. Raise ModelError unless each is a scalar."""
    if not hasattr(type(tower), "loss"):
        raise ModelError(
            f"{path}: class {type(tower).__name__} has no loss; add it as a method under @model_property, or specify "
            f"{setting('loss', example='NAME')}"
        )
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
