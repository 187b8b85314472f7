"""The interface of a backend's network. It runs in the backend's own process, so this module imports only numpy.

All arrays are float32, in the data order and channel order that the backend declares; callers convert them.
Weights are neutral: one array per parameter, named ``layer.weight`` / ``layer.bias``, convolutions OIHW, deconvolutions
IOHW. The solver state is neutral too: arrays named ``slot/layer.weight`` in the same layout, with the slots defined in
docs/solvers.md, and ``steps``, one integer, if the solver counts its updates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from multiseg.errors import ModelError, SettingsError, setting

Array = npt.NDArray[np.float32]
LossTerms = list[tuple[float, float]]  # of a batch, see Network.evaluate
STEPS = "steps"  # in a solver's state: the number of updates

FLOAT32, BF16 = PRECISIONS = ("float32", "bf16")  # in which a training step computes

LabelKind = Literal["images", "classes"]
IMAGES: LabelKind = "images"  # a value for each element of the network's output
CLASSES: LabelKind = "classes"  # a class index from 0 for each pixel, or (labels of one pixel) for each image


@dataclass(frozen=True)
class NetworkSpec:
    """The specification from which a backend builds a network: plain values, sent to its process as JSON.

    Shapes are C, H, W. ``solver`` holds ``name`` and that solver's parameters; None builds for prediction only.
    ``loss`` is None for the model's own loss, or a loss that the backend declares, ``loss_options`` all its parameters.
    ``labels`` is the kind that the dataset states, or that the named loss requires; see :func:`label_kind`. Class indices that
    equal ``ignore_index`` do not count in the loss, in addition to those that the file's own loss ignores. ``class_weights`` are
    the weights of the classes in a named loss, one for each score of the network; empty for equal weights.
    Batch sizes are None for the model's own, else the backend's default. ``frozen`` are patterns (fnmatch) of names of layers
    whose parameters are not trained; see :func:`is_frozen`. With ``mixed_sizes`` batches have one image, of any size; the shapes
    are those of one of them.

    ``recipe`` selects the solver's update rule: ``tutorial`` the framework's own, ``equal`` the one that docs/solvers.md
    defines for all backends. ``multipliers`` maps patterns (fnmatch) of parameter names to multipliers of learning rate (``lr``)
    and weight decay (``decay``); see :func:`factors`. ``accumulate``: a training step receives up to this many batches, processes
    them one after the other and updates once, with the average gradient over all images.

    ``compile`` and ``precision`` concern the training step only: whether the framework compiles it, and FLOAT32 or BF16. With
    BF16, parameters, solver state and loss are float32. Predictions and evaluations are computed in float32 without compilation,
    unless ``prediction_precision`` is BF16: `predict` then computes the network as a training step does, for checks of it.
    A backend receives only values that its declaration allows.
    """

    model: str
    input_shape: tuple[int, int, int]
    label_shape: tuple[int, int, int]
    solver: Mapping[str, Any] | None
    loss: str | None
    batch_size: int | None
    val_batch_size: int | None
    seed: int
    threads: int
    device: str
    lowering: bool
    frozen: tuple[str, ...] = ()
    recipe: str = "tutorial"
    multipliers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    accumulate: int = 1
    labels: LabelKind = IMAGES
    loss_options: Mapping[str, float] = field(default_factory=dict)
    mixed_sizes: bool = False
    ignore_index: int | None = None
    class_weights: tuple[float, ...] = ()
    compile: bool = False
    precision: str = FLOAT32
    prediction_precision: str = FLOAT32

    def label_kind(self, output: Sequence[int]) -> LabelKind:
        """Return how a network with an ``output`` of this shape, (C, H, W) or (C,), reads the labels of this specification."""
        return label_kind(self.labels, self.label_shape, output) if self.loss is None else self.labels

    def fits(self, output: Sequence[int]) -> bool:
        """Return whether labels of this specification fit an ``output`` of this shape, (C, H, W) or (C,).

        Labels of one pixel fit any output here: the loss checks how many numbers it needs for an image.
        """
        if self.label_shape[1:] == (1, 1):
            return True
        if self.label_kind(output) == CLASSES:
            return len(output) == 3 and tuple(output[1:]) == self.label_shape[1:]
        return tuple(output) == self.label_shape

    def to_json(self) -> dict[str, Any]:
        """Return the specification as a plain dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> NetworkSpec:
        """Return the specification from the result of :meth:`to_json`."""
        shapes = {key: tuple(values[key]) for key in ("input_shape", "label_shape")}
        lists = {key: tuple(values.get(key, ())) for key in ("frozen", "class_weights")}
        return cls(**{**values, **shapes, **lists})

    def check_class_weights(self, classes: int) -> None:
        """Raise ModelError if the class weights do not have one number for each of ``classes`` scores."""
        if self.class_weights and len(self.class_weights) != classes:
            raise ModelError(
                f"{self.model}: has scores of {classes} classes, and {setting('class_weights')} are "
                f"{len(self.class_weights)} numbers; specify one for each score, as a list of {classes} numbers ('balanced' and "
                "'median_frequency' have one for each class of the dataset)"
            )


def description(network: Network, spec: NetworkSpec) -> dict[str, Any]:
    """Return the description of a network loaded for ``spec``, completed.

    ``loss`` is a name, ``own_loss`` states whether it is the model's, ``ignored`` are all labels that it ignores.
    """
    values = network.describe()
    name = spec.loss or values.get("loss") or f"{PurePath(spec.model).name}'s own"
    ignored = set(values.get("ignored", ()))
    if spec.ignore_index is not None and values.get("labels") == CLASSES:
        ignored.add(spec.ignore_index)
    return {**values, "loss": name, "own_loss": spec.loss is None, "ignored": sorted(ignored)}


def loss_of(terms: LossTerms) -> float:
    """Return the loss that terms added up over batches amount to, see :meth:`Network.evaluate`; 0 if no label counts."""
    return sum(total / count if count else total for total, count in terms)


def label_kind(stated: LabelKind, label_shape: Sequence[int], output: Sequence[int]) -> LabelKind:
    """Return how a network's own loss reads labels of ``label_shape`` (C, H, W): as images, or as class indices.

    ``stated`` is the kind that the dataset states, ``output`` the shape of the network's output, (C, H, W) or (C,). Labels that
    have one value for each value of the output are compared with it element by element. Otherwise labels of one channel are class
    indices, also where the dataset states images: grey masks are stored as images. This is the only place where it is decided;
    the result is kept in a run's job.json.
    """
    if math.prod(output) == 1 or tuple(output) == tuple(label_shape):
        return IMAGES
    return CLASSES if stated == CLASSES or label_shape[0] == 1 else IMAGES


def unequal_elements(output: Sequence[int], labels: Sequence[int], order: str = "C, H, W") -> ModelError:
    """Return the error of a loss that compares element by element an output and labels of these shapes, in this ``order``.

    It names the loss of class indices if the output is scores of classes at the labels' places.
    """
    axes = order.split(", ")
    channel, (scores, indices) = axes.index("C"), (list(output), list(labels))
    classes = scores.pop(channel) if len(scores) == len(axes) else scores.pop()
    index = indices.pop(channel) if len(indices) == len(axes) else 0
    of_classes = classes > 1 and index == 1 and (scores or [1, 1]) == indices
    remedy = f"; if the labels are class indices, specify {setting('loss', 'cross_entropy')}" if of_classes else ""
    return ModelError(
        f"the loss compares element by element; the output is {tuple(output)}, the labels are {tuple(labels)} ({order}){remedy}"
    )


class Network(ABC):
    """A loaded network with its loss and solver. Backends implement only these methods; everything else is common code."""

    @abstractmethod
    def __init__(self, spec: NetworkSpec) -> None:
        """Load and build the network. Raises ModelError naming the file if that fails."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return ``batch_size``, ``val_batch_size``, ``device``, ``parameters`` ({name: shape}), ``lowered`` (names of the
        layers that are computed as one matrix product), ``labels`` (how it reads them, see :meth:`NetworkSpec.label_kind`), and
        ``trained`` ({name: factor of the learning rate} of the parameters that the solver moves). Optional: ``loss``, the name of
        the model's own loss; ``classes``, the number of classes if its loss takes class indices, else None; ``ignored``, the
        class indices that it ignores besides the specification's; ``files``, those that the network file refers to, relative to
        its folder; ``single_values``, the layers that normalise a batch by statistics of one value per image and channel;
        ``shared``, the names of each array of weights that has several, the first as in ``trained``;
        ``averages``, how batch normalisation updates the averages that it keeps ({name: {``rule``, ``momentum``,
        ``unbiased``}}, see multiseg.reference.averages.AverageRule); ``compile_seconds``, the time that compiling the training
        step took; ``logits``, whether the loss computes the sigmoid of the output itself; ``label_range``, the smallest and the
        largest label that the loss takes; and ``input_type``,
        the name of the type of its images if they are integers."""

    @abstractmethod
    def train_step(self, features: Array, labels: Array, rate: float, seed: int = 0) -> float:
        """Run forward, backward and update with learning rate ``rate``; return the loss before the update.

        Random operations, e.g. dropout, depend only on ``seed`` (0 to 2**31-1), which is different for each step, so that a
        resumed training draws the same numbers.
        """

    @abstractmethod
    def predict(
        self, features: Array, labels: Array | None, activations: bool = False
    ) -> tuple[Array, float | None, dict[str, Array]]:
        """Return the output for a batch of any size, its loss if there are labels, and all activations if requested.

        Activations are in the order of computation, by layer name, in the backend's data order. An in-place layer does not
        overwrite the activations of the layer before it, and a lowered layer has the same activations as without lowering."""

    def training_values(
        self, features: Array, labels: Array, seed: int
    ) -> tuple[dict[str, Array], dict[str, Array]] | None:
        """Return what each dropout multiplies by in a training step with this batch and ``seed``, and the activations in it.

        Nothing changes. Factors are 0 or what the framework scales with, by the names of the layers in the file's description;
        axes of size 1 apply to all elements. Activations are as those of :meth:`predict`, some may be missing. Both are in the
        backend's data order. Optional: parity compares training with dropout by them. None if the backend does not state them.
        """
        return None

    def evaluate(self, features: Array, labels: Array) -> tuple[Array, LossTerms]:
        """Return the output for a batch and the terms of its loss, so that the loss over several batches can be computed.

        A term is a pair (total, count): of a mean, the sum and the number of elements that it is the mean of. The loss over a set
        of images is the sum over its terms of all totals / all counts. A loss that is a sum over the batch has the count
        images / batch size: it is that of a batch as in training. By default, the loss is the mean over the images.
        """
        output, loss, _ = self.predict(features, labels)
        assert loss is not None
        return output, [(loss * len(features), len(features))]

    @abstractmethod
    def get_weights(self, state: bool = False) -> dict[str, Array]:
        """Return copies of all parameters in neutral form; or, with ``state``, of the solver state of the trained parameters.

        Before the first step, the solver state is its initial state.
        """

    @abstractmethod
    def set_weights(self, weights: Mapping[str, Array], state: Mapping[str, Array] | None = None) -> None:
        """Replace all parameters and, if ``state`` is not None, the whole solver state, which the next step continues from.

        Raises ModelError naming the array that is missing, unknown or of another shape.
        """

    @abstractmethod
    def save(self, folder: str) -> None:
        """Write weights and solver state, in the framework's own format, into an existing folder."""

    @abstractmethod
    def restore(self, folder: str) -> None:
        """Load the files of :meth:`save`; the solver state only if this network was built with a solver."""

    def successor(self, spec: NetworkSpec) -> Network | None:
        """Return a network for ``spec``, as if it was loaded, that uses parts of this one, which is closed; None if it has to be
        loaded.

        A backend may implement this for a specification that differs in the solver alone, and a file that did not change.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Release the resources of the framework."""


class RankNetwork(Network):
    """The copy of a network in one rank of a distributed training; defined in the module ``Backend.distributed``.

    The ranks connect through torchrun's environment variables while the network is loaded. Batch sizes count the images of all
    ranks. Rank 0 leads: the other ranks follow the messages that it shares.
    """

    @abstractmethod
    def train_step(  # type: ignore[override]
        self, features: Array, labels: Array, rate: float, seed: int = 0
    ) -> float | None:
        """Run a step with this rank's shard of the batch, which may be empty; update and loss are those of the whole batch.

        Returns None without a step if rank 0 shares a message instead.
        """

    @abstractmethod
    def share(self, message: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return rank 0's ``message`` (plain values) on every rank; the other ranks pass None and wait for it."""

    @abstractmethod
    def align(self) -> None:
        """Copy the weights and the solver state of rank 0 to every rank."""


def is_frozen(parameter: str, frozen: Iterable[str]) -> bool:
    """Return whether the parameter ``layer.part`` belongs to a layer that matches one of the patterns."""
    return any(fnmatchcase(parameter.rpartition(".")[0], pattern) for pattern in frozen)


def factors(
    spec: NetworkSpec, own: Mapping[str, tuple[float, float]], shared: Iterable[Sequence[str]] = ()
) -> dict[str, tuple[float, float]]:
    """Return the multipliers (learning rate, weight decay) of each parameter that is not frozen: ``own``, then the job's.

    ``own`` holds every parameter of the network, ``shared`` the names of each array that has several: what applies to one of them
    applies to all. Raises SettingsError if a pattern matches no parameter, or if all are frozen.
    """
    multipliers = dict(own)
    names_of = {name: names for names in shared for name in names}
    for pattern, overrides in spec.multipliers.items():
        matching = [name for name in own if any(fnmatchcase(one, pattern) for one in names_of.get(name, [name]))]
        if not matching:
            raise SettingsError(
                f"{setting('multipliers', pattern)}: the network has no such parameter; it has: {', '.join(multipliers)}"
            )
        for name in matching:
            lr, decay = multipliers[name]
            multipliers[name] = (overrides.get("lr", lr), overrides.get("decay", decay))
    frozen = {name for name in own if any(is_frozen(one, spec.frozen) for one in names_of.get(name, [name]))}
    if own and len(frozen) == len(own):
        raise SettingsError(f"{setting('freeze', list(spec.frozen))}: leaves no layer to train")
    return {name: pair for name, pair in multipliers.items() if name not in frozen}


def joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the arrays of the parts of a batch, which have the same names, along their first axis."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fixed_by_file(
    spec: NetworkSpec, parameters: Collection[str], trained: Collection[str], shared: Iterable[Sequence[str]] = ()
) -> set[str]:
    """Return the ``parameters`` that the job would train and the solver does not: the file fixes them, as FCN-8s its upsampling.

    ``trained`` are those that the solver updates, ``shared`` the names of arrays that have several (Network.describe).
    """
    rates = factors(spec, dict.fromkeys(parameters, (1.0, 1.0)), shared)
    return {name for name, (rate, _) in rates.items() if rate and name not in trained}


def check_state(model: str, shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Array]) -> None:
    """Raise ModelError unless the state has exactly the arrays of the solver state, by name and shape."""
    for name, shape in shapes.items():
        if name not in state:
            raise ModelError(f"{model}: its solver keeps {name!r}; given are: {', '.join(state) or 'none'}")
        if state[name].shape != tuple(shape):
            raise ModelError(f"{model}: {name!r} given to its solver is {state[name].shape}, it keeps {tuple(shape)}")
    unknown = [name for name in state if name not in shapes]
    if unknown:
        raise ModelError(f"{model}: its solver keeps no {unknown[0]!r}; it keeps: {', '.join(shapes) or 'nothing'}")


def check_weights(model: str, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, Array]) -> None:
    """Raise ModelError unless the weights are exactly the network's parameters, by name and shape."""
    for name, shape in shapes.items():
        if name not in weights:
            raise ModelError(f"{model}: no weights are given for {name!r}; given are: {', '.join(weights) or 'none'}")
        if weights[name].shape != tuple(shape):
            raise ModelError(
                f"{model}: weights of {name!r} are {weights[name].shape}, the network's are {tuple(shape)}"
            )
    unknown = [name for name in weights if name not in shapes]
    if unknown:
        raise ModelError(f"{model}: has no parameter {unknown[0]!r}; it has: {', '.join(shapes)}")
