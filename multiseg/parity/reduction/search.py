"""Find the smallest part of a network that still differs from float64 in a backend."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from multiseg import reference
from multiseg.backend import Backend
from multiseg.errors import ModelError, MultisegError
from multiseg.parity import case as cases
from multiseg.parity import dropout
from multiseg.parity.case import Case
from multiseg.parity.reduction.parts import FACTORS, node_of, part_of
from multiseg.parity.rows import ParityRow
from multiseg.parity.twin import without_dropout
from multiseg.reference.bounded import Array
from multiseg.topology import Layer, Topology
from multiseg.worker.client import Worker

SECONDS = 90.0  # after which no further part is tried
FEW = 3  # layers of the parts that are tried first
STAGES = {  # the stages in which a part has to differ, by the stage of the difference in the network
    "weights": ("forward", "output"),
    "forward": ("forward", "output"),
    "output": ("forward", "output"),
    "loss": ("loss",),
    "gradient": ("gradient",),
    "step": ("step",),
    "dropout": ("dropout",),
}


@dataclass(frozen=True)
class Reduction:
    """The smallest part that differs.

    ``row`` is its first difference, None if not even the whole network differs when it is written from its description; ``case``
    is the part, ``layers`` the names of its layers in the network, ``of`` the number of layers of the network; ``tried`` is the
    number of parts that were checked; ``original`` is the first difference in the network. ``remarks`` are what a reader has to
    know.
    """

    original: ParityRow
    case: Case
    row: ParityRow | None
    layers: tuple[str, ...]
    of: int
    tried: int
    seconds: float
    remarks: tuple[str, ...] = ()


def reduce(
    case: Case, original: ParityRow, backend: Backend, worker: Worker, folder: Path,
    shown: Mapping[str, Array] | None = None, lowering: bool = False, seconds: float = SECONDS,
) -> Reduction:  # fmt: skip
    """Return the smallest part of ``case`` in which the difference ``original`` occurs.

    ``shown`` are the outputs of layers in the framework, by the reference's names; other inputs of parts are float64's. Network
    files are written to ``folder``, and computed in ``worker``, a process of ``backend``.
    """
    with np.errstate(all="ignore"):
        return _Search(case, original, backend, worker, folder, shown or {}, lowering, seconds).result()


@dataclass
class _Search:
    case: Case
    original: ParityRow
    backend: Backend
    worker: Worker
    folder: Path
    shown: Mapping[str, Array]
    lowering: bool
    seconds: float
    tried: int = 0
    values: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.begin = time.monotonic()
        self.network = self.case.topology
        self.stages = STAGES.get(self.original.stage, STAGES["forward"])
        if self.original.stage in cases.TRAINING and self.original.stage != dropout.STAGE:
            self.network, _ = without_dropout(self.network)
        self.case = replace(self.case, topology=self.network)
        if self.original.step:
            self.case = replace(self.case, steps=min(self.case.steps, self.original.step))
        self.values = values_of(self.case, self.shown)
        self.producers = {value: layer for layer in self.network.layers for value in layer.outputs}
        self.consumers: dict[str, list[Layer]] = {}
        for layer in self.network.layers:
            for value in layer.inputs:
                self.consumers.setdefault(value, []).append(layer)

    def result(self) -> Reduction:
        """Try parts from small to large, then smaller batches and images of the first one that differs."""
        remarks: list[str] = []
        for layers, part in self._candidates():
            row = self._difference(part)
            if row is not None:
                part, row = self._smaller(part, row)
                break
            if time.monotonic() - self.begin > self.seconds:
                remarks.append(f"the search ended after {self.seconds:g} s")
                layers, part, row = list(self.network.layers), self.case, self._difference(self.case)
                break
        else:
            layers, part, row = list(self.network.layers), self.case, self._difference(self.case)
        if row is None:
            remarks.append(
                f"written from its description, the network agrees in {self.backend.title}, and so does each part that was "
                "tried: the difference is in what the network file does beyond its description, or in how the file is computed"
            )
        elif len(layers) > FEW:
            remarks.append("no part of up to three layers differs on its own")
        if row is not None and row.stage != self.original.stage:
            remarks.append(f"in the network it is found in the stage {self.original.stage}, in the part in {row.stage}")
        names = tuple(layer.name for layer in layers)
        seconds = time.monotonic() - self.begin
        return Reduction(self.original, part, row, names, len(self.network.layers), self.tried, seconds, tuple(remarks))

    def _difference(self, part: Case) -> ParityRow | None:
        """Return the first difference of a part, None if there is none, or none in the stages that count."""
        self.tried += 1
        wanted = [stage for stage in self.stages if stage in cases.TRAINING]
        stages = ["gradient", *wanted] if wanted else []
        try:
            parity = cases.check(part, self.backend, self.worker, self.folder, stages, self.lowering)
        except MultisegError:
            if self.worker.closed:
                raise
            return None  # the part is not computed by this backend
        first = parity.first
        return first if first is not None and first.stage in self.stages else None

    # --- candidates

    def _candidates(self) -> Iterator[tuple[list[Layer], Case]]:
        """Yield parts that may differ, with their layers, from small to large."""
        build = self._predicting
        if self.original.stage in cases.TRAINING:
            windows = self._after(self._anchor())
            build = self._training
        elif self.original.stage == "loss":
            windows, build = self._before(self.network.layers[-1]), self._with_loss
        else:
            windows = self._before(self._anchor())
        seen: set[tuple[str, ...]] = set()
        for layers in windows:
            key = tuple(layer.name for layer in layers)
            if key not in seen and len(layers) < len(self.network.layers):
                seen.add(key)
                yield from self._built(layers, build)
        if self.original.stage in cases.TRAINING:
            for layers in self._before(self.producers[self.network.outputs[0]]):
                yield from self._built(layers, self._with_loss)

    def _built(
        self, layers: list[Layer], build: Callable[[list[Layer]], Iterator[Case]]
    ) -> Iterator[tuple[list[Layer], Case]]:
        try:
            for part in build(layers):
                yield layers, part
        except (ModelError, ValueError, KeyError):
            return  # these layers are not a network of their own

    def _anchor(self) -> Layer:
        """Return the layer of the difference."""
        name, stage = self.original.name, self.original.stage
        if stage in ("weights", *cases.TRAINING):
            names = self.original.subject, self.original.subject.rpartition(".")[0]
            # a dropout that only the framework has is no layer
            return next((layer for layer in self.network.layers if layer.name in names), self.network.layers[-1])
        return self.producers[name]

    def _before(self, layer: Layer) -> Iterator[list[Layer]]:
        """Yield the layer, then with its neighbours, then with more and more of the layers before it."""
        yield [layer]
        earlier = [self.producers[value] for value in dict.fromkeys(layer.inputs) if value in self.producers]
        later = [other for value in layer.outputs for other in self.consumers.get(value, [])]
        for other in earlier:
            yield self._ordered([other, layer])
        for other in later:
            yield self._ordered([layer, other])
        for other in earlier:
            for value in other.inputs:
                if value in self.producers:
                    yield self._ordered([self.producers[value], other, layer])
            for another in later:
                yield self._ordered([other, layer, another])
        yield from self._growing(layer, lambda one: [self.producers[v] for v in one.inputs if v in self.producers])

    def _after(self, layer: Layer) -> Iterator[list[Layer]]:
        """Yield the layer, then with each of the layers after it up to the next one with parameters, which may have lost the
        gradient, then with more and more of the layers after it."""
        yield [layer]
        path: list[Layer] = []
        place = layer
        while nexts := [other for value in place.outputs for other in self.consumers.get(value, [])]:
            place = nexts[0]
            path.append(place)
            if place.weights:
                break
        for other in path:
            yield [other]
        yield from (self._ordered([layer, *path[:count]]) for count in (1, 2) if len(path) >= count)
        for one, other in itertools.pairwise(path):
            yield [one, other]
        yield from self._growing(layer, lambda one: [o for value in one.outputs for o in self.consumers.get(value, [])])

    def _growing(self, layer: Layer, nearer: Callable[[Layer], list[Layer]]) -> Iterator[list[Layer]]:
        """Yield the layer with all that are at most 2, 4, 8, ... steps away."""
        names, edge, steps, limit = {layer.name}, [layer], 0, 2
        while edge:
            near = {other.name for one in edge for other in nearer(one)} - names
            edge = [one for one in self.network.layers if one.name in near]
            names, steps = names | near, steps + 1
            if steps == limit or not edge:
                limit *= 2
                yield [one for one in self.network.layers if one.name in names]

    def _ordered(self, layers: Sequence[Layer]) -> list[Layer]:
        names = {layer.name for layer in layers}
        return [layer for layer in self.network.layers if layer.name in names]

    def _last(self, layers: Sequence[Layer]) -> str:
        """Return the output of a part: the value that differs if a last layer computes it, else the last layer's first value."""
        read = {value for layer in layers for value in layer.inputs}
        ends = [value for layer in layers for value in layer.outputs if value not in read]
        return self.original.name if self.original.name in ends else layers[-1].outputs[0]

    def _predicting(self, layers: list[Layer]) -> Iterator[Case]:
        """Yield the part for a comparison of its outputs."""
        topology, images = part_of(self.network, layers, self.values, self._last(layers))
        part = replace(
            self.case, topology=topology, images=images, labels=None, loss="l2", loss_options={}, classes=False
        )
        yield self._weighted(replace(part, class_weights=(), ignore=None))

    def _with_loss(self, layers: list[Layer]) -> Iterator[Case]:
        """Yield the part for a comparison of the network's own loss; it has to compute the network's output."""
        output = self.network.outputs[0]
        trains = self.original.stage in cases.TRAINING
        for factors in (False, True) if trains else (False,):
            topology, images = part_of(self.network, layers, self.values, output, factors)
            yield self._weighted(replace(self.case, topology=topology, images=images))

    def _training(self, layers: list[Layer]) -> Iterator[Case]:
        """Yield the part for a comparison of gradients and steps, with the mean squared difference from random labels."""
        output = self._last(layers)
        values = self.values[output]
        if values.ndim == 3:
            return
        draw = np.random.default_rng(self.case.seed)
        labels = values.reshape((*values.shape, 1, 1)[:4]) + draw.normal(size=(*values.shape, 1, 1)[:4])
        has_weights = any(layer.weights for layer in layers)
        for factors in (False, True) if has_weights else (True,):
            topology, images = part_of(self.network, layers, self.values, output, factors)
            yield self._weighted(
                replace(
                    self.case, topology=topology, images=images, labels=labels.astype(np.float32), loss="l2",
                    loss_options={}, class_weights=(), classes=False, ignore=None,
                )
            )  # fmt: skip

    def _weighted(self, part: Case) -> Case:
        """Return the part with the weights of its layers."""
        names = part.topology.weights
        draw = np.random.default_rng(self.case.seed)
        factors = {
            name: draw.uniform(0.5, 1.5, shape).astype(np.float32)
            for name, shape in names.items()
            if name.startswith(f"{FACTORS}.")
        }
        weights = {**self.case.weights, **factors}
        own = None if self.case.own is None else {**self.case.own, **factors}
        return replace(
            part,
            weights={name: weights[name] for name in names},
            own=None if own is None else {name: own[name] for name in names if name in own},
        )

    # --- smaller batches and images

    def _smaller(self, part: Case, row: ParityRow) -> tuple[Case, ParityRow]:
        """Return the part with fewer images and fewer pixels, as long as it differs, with its first difference."""
        for smaller in (_one_image, _half_height, _half_width):
            while time.monotonic() - self.begin < self.seconds:
                try:
                    candidate = smaller(part)
                except (ModelError, ValueError):
                    break
                difference = None if candidate is None else self._difference(candidate)
                if candidate is None or difference is None:
                    break
                part, row = candidate, difference
        return part, row


def values_of(case: Case, shown: Mapping[str, Array]) -> dict[str, Array]:
    """Return the values of all layers: those that the framework ``shown``, else float64's, as float32."""
    shapes = case.topology.shapes
    shown = {name: value for name, value in shown.items() if name in shapes and value.shape[1:] == shapes[name]}
    trace = reference.forward(case.topology, case.weights, case.images, shown)
    return {name: np.asarray(value.value, dtype=np.float32) for name, value in trace.values.items()}


def _one_image(part: Case) -> Case | None:
    if len(part.images) == 1:
        return None
    return replace(part, images=part.images[:1], labels=None if part.labels is None else part.labels[:1])


def _half_height(part: Case) -> Case | None:
    return _cropped(part, 0)


def _half_width(part: Case) -> Case | None:
    return _cropped(part, 1)


def _cropped(part: Case, axis: int) -> Case | None:
    """Return the part for the first half of its images along an axis, None if there is one row only."""
    channels, *size = part.topology.input_shape
    if size[axis] < 2 or part.written is not None:
        return None
    size[axis] = (size[axis] + 1) // 2
    topology = _resized(part.topology, (channels, *size))
    if topology.weights != part.topology.weights:
        return None
    images = part.images[:, :, : size[0], : size[1]]
    labels = part.labels
    if labels is not None:
        shape = topology.shapes[topology.outputs[0]]
        if len(shape) == 3 and labels.shape[2:] != (1, 1):
            labels = labels[:, :, : shape[1], : shape[2]]
    return replace(part, topology=topology, images=images, labels=labels)


def _resized(topology: Topology, shape: tuple[int, ...]) -> Topology:
    """Return the same layers for images of another size. Raises ModelError if they do not fit."""
    nodes = [node_of(layer, {}) for layer in topology.layers]
    description = {"input": topology.input, "input_shape": shape, "layers": nodes, "outputs": list(topology.outputs)}
    return Topology.of(topology.source, topology.kind, description)
