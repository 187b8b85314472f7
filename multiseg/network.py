"""The interface that a backend's network offers. It runs in the backend's own process, so this imports numpy alone.

All arrays are float32, in the data order and channel order that the backend declares; conversion is the core's.
Weights are neutral: one array per parameter, named ``layer.weight`` / ``layer.bias``, convolutions OIHW, deconvolutions
IOHW. So is what the solver keeps of them from step to step: by ``slot/layer.weight``, in the same layout, slots as
docs/solvers.md defines them; beside them ``steps``, one whole number, where the solver's rule counts its updates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from multiseg.errors import ModelError, SettingsError, setting

Array = npt.NDArray[np.float32]
STEPS = "steps"  # in a solver's state: how many updates it has made

LabelKind = Literal["images", "classes"]
IMAGES: LabelKind = "images"  # a value for each element of the network's output
CLASSES: LabelKind = "classes"  # a class index from 0 for each pixel, or (labels of one pixel) for each image


@dataclass(frozen=True)
class NetworkSpec:
    """What a backend needs to build a network: plain values only, they travel to its process as JSON.

    Shapes are C, H, W. ``solver`` holds ``name`` and that solver's parameters; None builds for prediction only.
    ``loss`` is None for the model's own, or one of those that the backend declares, ``loss_options`` all its parameters.
    ``labels`` is the kind that the dataset states, or that the named loss takes; see :func:`label_kind`.
    Batch sizes are None for the model's own, else the backend's default. ``frozen`` are patterns (fnmatch) of names of layers
    whose parameters the solver leaves as they are; see :func:`is_frozen`.

    ``recipe`` says whose rule the solver follows: ``tutorial`` the framework's own, ``equal`` the one that docs/solvers.md
    defines for all. ``multipliers`` of learning rate (``lr``) and weight decay (``decay``) go by patterns (fnmatch) of
    parameters' names; see :func:`factors`. ``accumulate``: a training step gets up to this many batches at once, runs one after
    the other and updates once, by the average of the gradients over all the images.
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
        """Plain dict of this specification."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> NetworkSpec:
        """The inverse of :meth:`to_json`."""
        shapes = {key: tuple(values[key]) for key in ("input_shape", "label_shape")}
        return cls(**{**values, **shapes, "frozen": tuple(values.get("frozen", ()))})


def description(network: Network, spec: NetworkSpec) -> dict[str, Any]:
    """Return the description of a network loaded for ``spec``, with ``loss`` (a name) and ``own_loss`` (is it the model's?)."""
    values = network.describe()
    name = spec.loss or values.get("loss") or f"{PurePath(spec.model).name}'s own"
    return {**values, "loss": name, "own_loss": spec.loss is None}


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


class Network(ABC):
    """A loaded network with its loss and solver. At most these eight methods; everything else is the core's."""

    @abstractmethod
    def __init__(self, spec: NetworkSpec) -> None:
        """Load and build. Raises ModelError naming the file where it cannot be."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return ``batch_size``, ``val_batch_size``, ``device``, ``parameters`` ({name: shape}), ``lowered`` (names of the
        layers that are computed as one matrix product), ``labels`` (how it reads them, see :meth:`NetworkSpec.label_kind`), and
        ``trained`` ({name: factor of the learning rate} of the parameters that the solver moves). Optional: ``loss``, the name of
        the model's own loss."""

    @abstractmethod
    def train_step(self, features: Array, labels: Array, rate: float, seed: int = 0) -> float:
        """One forward, backward and update at learning rate ``rate``; the loss before the update.

        What is random in it, e.g. dropout, depends on ``seed`` (0 to 2**31-1) alone: the core gives each step its own, so that
        a resumed training draws the same.
        """

    @abstractmethod
    def predict(
        self, features: Array, labels: Array | None, activations: bool = False
    ) -> tuple[Array, float | None, dict[str, Array]]:
        """Output for a batch of any size, its loss where labels are given, and what every layer made where asked for.

        Activations are in the order of computation, by the layer's name, in the backend's data order; a layer that works in
        place does not hide what the one before it made, and a lowered layer shows what it would show unlowered."""

    @abstractmethod
    def get_weights(self, state: bool = False) -> dict[str, Array]:
        """Copies of all parameters, neutral; or, with ``state``, of what the solver keeps of those that it trains.

        Before the first step that is what it starts from.
        """

    @abstractmethod
    def set_weights(self, weights: Mapping[str, Array], state: Mapping[str, Array] | None = None) -> None:
        """Replace all parameters, and all that the solver keeps where ``state`` is given: the next step goes on from there.

        Raises ModelError naming what is missing, unknown or of another shape.
        """

    @abstractmethod
    def save(self, folder: str) -> None:
        """Write weights and the solver's state, in the framework's own files, into an existing folder."""

    @abstractmethod
    def restore(self, folder: str) -> None:
        """Read what :meth:`save` wrote; the solver's state only where this network was built with a solver."""

    @abstractmethod
    def close(self) -> None:
        """Free what the framework holds."""


class RankNetwork(Network):
    """One of several processes' copies of a network, that train as one; in the module that ``Backend.distributed`` names.

    The processes find each other by torchrun's variables while it is loaded. Batch sizes count the images of all of them. Rank
    0's program leads: the others' follow what it shares.
    """

    @abstractmethod
    def train_step(  # type: ignore[override]
        self, features: Array, labels: Array, rate: float, seed: int = 0
    ) -> float | None:
        """As a network's, with this rank's images of the batch, perhaps none; the update and the loss are the whole batch's.

        None, with nothing done, where rank 0 shares something instead of a step.
        """

    @abstractmethod
    def share(self, message: dict[str, Any] | None = None) -> dict[str, Any]:
        """Rank 0's ``message``, plain values, at every rank; the others give none, and wait for it."""

    @abstractmethod
    def align(self) -> None:
        """Give every rank the weights and the solver's state of rank 0."""


def is_frozen(parameter: str, frozen: Iterable[str]) -> bool:
    """Whether the parameter ``layer.part`` belongs to a layer that one of the patterns names."""
    return any(fnmatchcase(parameter.rpartition(".")[0], pattern) for pattern in frozen)


def factors(spec: NetworkSpec, own: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Multipliers (of learning rate, of weight decay) of each parameter that is not frozen: ``own``, overridden by the job's.

    ``own`` holds every parameter of the network. Raises SettingsError for a pattern that matches none, and where all are frozen.
    """
    found = dict(own)
    for pattern, given in spec.multipliers.items():
        matching = [name for name in found if fnmatchcase(name, pattern)]
        if not matching:
            raise SettingsError(
                f"{setting('multipliers', pattern)}: the network has no such parameter; it has: {', '.join(found)}"
            )
        for name in matching:
            lr, decay = found[name]
            found[name] = (given.get("lr", lr), given.get("decay", decay))
    trained = {name: pair for name, pair in found.items() if not is_frozen(name, spec.frozen)}
    if own and not trained:
        raise SettingsError(f"{setting('freeze', list(spec.frozen))}: leaves no layer to train")
    return trained


def check_state(model: str, shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Array]) -> None:
    """Raise ModelError unless the state is exactly what the solver keeps, by name and shape."""
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
