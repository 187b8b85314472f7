"""Planted mistakes in training: a framework trains with another solver, loss or labels than the reference."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from multiseg import reference
from multiseg.campaign.networks import draw_case
from multiseg.layout import Layout
from multiseg.network import CLASSES
from multiseg.parity.case import Case
from multiseg.parity.comparing import Loss, Slopes, has_batch_statistics
from multiseg.parity.stepping import rate_of
from multiseg.parity.twin import without_dropout
from multiseg.reference import gradient
from multiseg.reference.bounded import Array, Bounded
from multiseg.reference.solvers import Solver
from multiseg.settings.losses import BINARY, LOSSES
from multiseg.settings.solvers import NEUTRAL
from multiseg.topology import Layer
from multiseg.worker.client import Worker

Rate = Callable[[int, float], float]
RATES = {"sgd": 1e-2, "nesterov": 1e-2, "adagrad": 1e-2, "rmsprop": 1e-3, "adadelta": 0.1, "adam": 1e-3}
OF_LOSS = ("loss", "loss_options", "class_weights", "ignore_index")  # keys of a specification


def unchanged(step: int, rate: float) -> float:
    return rate


@dataclass(frozen=True)
class TrainingMistake:
    """``case`` is right. The framework trains it with ``solver``, or with the loss and labels of ``wrong``.

    ``rate`` returns the learning rate that it is given for a step, from 0. One of ``words`` names the mistake.
    """

    kind: str
    words: tuple[str, ...]
    case: Case
    wrong: Case
    solver: Mapping[str, Any] = field(default_factory=dict)
    rate: Rate = unchanged

    @property
    def visible(self) -> bool:
        """Whether a loss, gradient or step in float64 moves by more than rounding allows both computations."""
        try:
            with np.errstate(all="ignore"):
                return self._visible()
        except (reference.NotComputable, IndexError):
            return False

    def _visible(self) -> bool:
        case, (loss, slopes) = self.case, computed(self.case)
        if self.wrong is not case:
            wrong_loss, wrong_slopes = computed(self.wrong)
            measured = {name: measurable(case.weights[name], value) for name, value in slopes.items()}
            return apart(loss, wrong_loss) or any(apart(measured[name], wrong_slopes[name]) for name in slopes)
        solver, other = (
            Solver(each["name"], {key: value for key, value in each.items() if key != "name"})
            for each in (case.solver, self.solver or case.solver)
        )
        weights = {name: case.weights[name] for name in slopes}
        for step in range(case.steps):
            rate = rate_of(case.rate, step, case.steps)
            one, two = solver.step(weights, slopes, rate), other.step(weights, slopes, self.rate(step, rate))
            if any(apart(one[name], two[name]) for name in slopes):
                return True
            weights = {name: value.value.astype(np.float32) for name, value in one.items()}
            slopes = computed(replace(case, weights={**case.weights, **weights}))[1]
        return False


def computed(case: Case) -> tuple[Bounded, Slopes]:
    """The loss and the gradients of a training pass in float64."""
    twin, _ = without_dropout(case.topology)
    loss = Loss.of(twin, case.loss, case.classes, case.spec(Path("net"), None, False))
    trace = reference.forward(twin, case.weights, case.images, training=has_batch_statistics(twin))
    values, slope, end = loss.at(trace, case.batch.labels)
    return values[0], reference.backward(end, slope)


def measurable(weights: Array, slope: Bounded) -> Bounded:
    """A gradient with the rounding of the training step that shows it."""
    return Bounded(slope.value, slope.bound + gradient.rounding(weights, slope.value))


def apart(one: Bounded, other: Bounded) -> bool:
    return bool(np.any(np.abs(one.value - other.value) > 2 * (np.asarray(one.bound) + other.bound)))


class Mistaken:
    """A worker that is given another solver, loss, labels and rates than the check gives it."""

    def __init__(self, worker: Worker, mistake: TrainingMistake) -> None:
        self.worker, self.mistake, self.step = worker, mistake, -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.worker, name)

    def call(self, method: str, **arguments: Any) -> Any:
        return self.worker.call(method, **self._changed(method, arguments))

    def submit(self, method: str, **arguments: Any) -> Any:
        return self.worker.submit(method, **self._changed(method, arguments))

    def _changed(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        mistake = self.mistake
        if method == "load":
            spec, wrong = arguments["spec"], mistake.wrong.spec(Path("net"), None, False).to_json()
            self.step = 0 if spec["solver"] == dict(mistake.case.solver) and mistake.case.steps else -1
            solver = dict(mistake.solver) if self.step == 0 and mistake.solver else spec["solver"]
            return {"spec": {**spec, **{key: wrong[key] for key in OF_LOSS}, "solver": solver}}
        if arguments.get("labels") is not None:
            layout = Layout(self.worker.backend.data_order, "RGB", None)
            arguments = {**arguments, "labels": layout.labels(mistake.wrong.batch.labels)}
        if method == "train_step" and self.step >= 0:
            arguments = {**arguments, "rate": mistake.rate(self.step, arguments["rate"])}
            self.step += 1
        return arguments


def training_mistakes(seed: int, number: int) -> Iterator[TrainingMistake]:
    """Yield mistakes in the training of the random network ``number`` of a campaign."""
    case = draw_case(seed, number)
    if not case.trains or any(map(damages_heap, case.topology.layers)):
        return
    name = sorted(NEUTRAL)[number % len(NEUTRAL)]
    decay = case.solver.get("weight_decay", 0.0)
    solver = {"name": name, **NEUTRAL[name].options, "weight_decay": decay}
    yield from of_solvers(replace(case, solver=solver, rate=RATES[name], steps=2))
    case = replace(case, steps=0)
    yield from of_losses(case)
    yield from of_labels(case, random.Random(f"labels {seed} {number}"))


def damages_heap(layer: Layer) -> bool:
    """Whether a layer is a convolution of one pixel with a stride, in which TensorFlow dies (docs/upstream-faults.md)."""
    strides = layer.parameters.get("strides") or [1]
    return layer.type == "Conv" and max(layer.parameters["kernel_shape"]) == 1 and max(strides) > 1


def of_solvers(case: Case) -> Iterator[TrainingMistake]:
    solver, rates = dict(case.solver), [rate_of(case.rate, step, 2) for step in range(2)]
    name, momentum = solver["name"], solver.get("momentum", 0.0)

    def mistake(kind: str, *words: str, rate: Rate = unchanged, **options: Any) -> TrainingMistake:
        return TrainingMistake(f"{name} {kind}", words, case, case, {**solver, **options}, rate)

    yield mistake("twice the rate", "multiplier of 2 ", rate=lambda step, rate: 2 * rate)
    yield mistake("ten times the rate", "multiplier of 10 ", rate=lambda step, rate: 10 * rate)
    yield mistake("rate of the step before", "the rate of the step before", rate=lambda step, rate: rates[0])
    if solver["weight_decay"]:
        yield mistake("no weight decay", "without weight decay", weight_decay=0.0)
    else:
        yield mistake("weight decay", "with weight decay 0.01", weight_decay=1e-2)
    if name in ("sgd", "nesterov"):
        other = "nesterov" if name == "sgd" else "sgd"
        # without momentum, nesterov's first step is sgd's
        yield mistake("rule", f"with the rule of {other}", *["without momentum"] * (name == "nesterov"), name=other)
        yield mistake("no momentum", "without momentum", name="sgd", momentum=0.0)
        yield mistake("momentum", "with momentum 0.8 ", momentum=0.8)
    if name == "sgd":
        # these two steps are those of a dampening that begins with the second step, and of Caffe's rule
        damped = lambda step, rate: rate * (1 - momentum) if step else rate  # noqa: E731
        yield mistake("dampening", "with dampening", rate=damped, momentum=momentum / (1 - momentum))
        yield mistake("rate within momentum", "kept within the momentum", momentum=momentum * rates[0] / rates[1])
    if "delta" in solver:
        yield mistake("delta", "with delta 0.001 ", delta=1e-3)
    if name == "rmsprop":
        yield mistake("decay", "with rms_decay 0.9 ", rms_decay=0.9)
    if name == "adadelta":
        yield mistake("decay", "with momentum 0.8 ", momentum=0.8)
    if name == "adam":
        one, two = momentum, solver["momentum2"]
        yield mistake("momentum", "with momentum 0.8 ", momentum=0.8)
        yield mistake("momentum2", "with momentum2 0.99 ", momentum2=0.99)
        yield mistake(
            "no bias correction", "without bias correction",
            rate=lambda step, rate: rate * (1 - one ** (step + 1)) / (1 - two ** (step + 1)) ** 0.5,
        )  # fmt: skip
        large = {**solver, "delta": 1e-2}
        first = replace(case, solver=large, steps=1)
        within = {**large, "delta": 1e-2 * (1 - two) ** 0.5}  # in the first step
        yield TrainingMistake("adam position of delta", ("beside the corrected root",), first, first, within)


def of_losses(case: Case) -> Iterator[TrainingMistake]:
    def mistake(kind: str, *words: str, **changed: Any) -> TrainingMistake:
        return TrainingMistake(f"{case.loss} {kind}", words, case, replace(case, **changed))

    assert case.loss is not None
    for name, row in LOSSES.items():
        if name != case.loss and row.labels == LOSSES[case.loss].labels:
            words = [f"with the loss {name}"] + ["with the loss smooth_l1"] * (name == "huber")  # equal at delta 1
            yield mistake(f"is {name}", *words, loss=name, loss_options=dict(row.parameters))
    for key, value in case.loss_options.items():
        other = {1.0: 255.0, 255.0: 1.0}[value] if key == "label_max" else 2 * value
        yield mistake(key, f"with {key} {other:g} ", loss_options={**case.loss_options, key: other})
    if not LOSSES[case.loss].weighted or not case.classes:
        return
    labels, outputs = case.batch.labels, case.topology.shapes[case.topology.outputs[0]][0]
    weights = case.class_weights or (1.0,) * outputs
    if case.class_weights:
        yield mistake("no class weights", "without class weights", class_weights=())
        yield mistake("class weights reversed", "class weights in reverse order", class_weights=weights[::-1])
    if case.loss != "cross_entropy+dice":  # a factor of both parts is no normalisation
        counts = labels[labels != case.ignore]
        total = float(np.asarray(weights)[counts.astype(int)].sum())
        for kind, words, factor in (
            ("sum", "as a sum instead of a mean", counts.size),
            ("by images", "divided by the number of images", counts.size / len(labels)),
            ("by all labels", "divided by the number of all labels", counts.size / labels.size),
            ("by weights", "divided by the sum of the labels' weights", counts.size / max(total, 1e-9)),
        ):
            if factor != 1:
                yield mistake(f"normalised {kind}", words, class_weights=tuple(factor * each for each in weights))


def of_labels(case: Case, draw: random.Random) -> Iterator[TrainingMistake]:
    labels, loss = case.batch.labels, case.loss or ""
    kind_of_labels = LOSSES[loss].labels

    def mistake(kind: str, wrong: Any, *words: str, right: Case = case, **changed: Any) -> TrainingMistake:
        return TrainingMistake(f"labels {kind}", words, right, replace(right, labels=wrong, **changed))

    if labels.shape[2] == labels.shape[3]:
        yield mistake("transposed", np.ascontiguousarray(labels.swapaxes(2, 3)), "transposed")
    yield mistake("upside down", labels[:, :, ::-1].copy(), "upside down")
    yield mistake("mirrored", labels[..., ::-1].copy(), "mirrored")
    yield mistake("of other images", labels[::-1].copy(), "those of the images in reverse order")
    if kind_of_labels != CLASSES:
        yield mistake("channels", labels[:, ::-1].copy(), "in reverse order of their channels")
        if loss != BINARY:
            yield mistake("divided by 255", (labels / 255).astype(np.float32), "divided by 255")
        return
    classes = case.topology.shapes[case.topology.outputs[0]][0]
    counts = labels != case.ignore if case.ignore is not None else np.ones(labels.shape, bool)
    for shift, words in ((1, "high"), (-1, "low")):
        wrong = np.where(counts, (labels + shift) % classes, labels).astype(np.float32)
        both = ["with each class one too"] * (classes == 2)  # the same
        yield mistake(f"one too {words}", wrong, f"with each class one too {words}", *both)
    ignored = draw.randrange(classes)
    other = (ignored + 1) % classes
    inside = replace(case, ignore=ignored)
    nothing = f"if {ignored} is not ignored"
    same = [] if (labels == other).any() else [nothing]
    yield mistake(
        "ignore off by one", labels, f"if {other} is ignored, not {ignored}", *same, right=inside, ignore=other
    )
    yield mistake("nothing ignored", labels, nothing, right=inside, ignore=None)
