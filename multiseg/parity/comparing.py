"""Compare one side with the reference: forward pass, gradients, and training steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from multiseg import reference
from multiseg.backend import Backend
from multiseg.errors import MultisegError
from multiseg.parity.dropout import Drawn
from multiseg.parity.explanation import of_gradient, of_layer, of_use
from multiseg.parity.loss import Loss as Loss
from multiseg.parity.loss_explanation import of_loss
from multiseg.parity.plan import ParityBatch
from multiseg.parity.reference_values import ReferenceValues
from multiseg.parity.rows import GRADIENT_OF, ParityRow
from multiseg.parity.side import ParitySide
from multiseg.reference import gradient
from multiseg.reference.bounded import FLOAT32, TINY, Array, Bounded, computed_in
from multiseg.reference.network import RULES
from multiseg.topology import Topology
from multiseg.topology.vocabulary import types

DOUBTS = 4  # maximum number of ReLU inputs near 0 for which both signs are tried
KINKED = types(lambda row: row.kinked)
BATCH_STATISTICS = types(lambda row: row.batch_statistics)
Weights = Mapping[str, Array]
Slopes = dict[str, Bounded]
T = TypeVar("T")


@dataclass(frozen=True)
class Pass:
    """A training pass of the reference: the gradients of parameters, and the values of layers that they follow from."""

    slopes: Slopes
    trace: reference.Trace


def forward(
    side: ParitySide,
    batch: ParityBatch,
    own: Weights,
    weights: Weights,
    whole: Bounded | None,
    loss: Loss | None,
    mean: object,
    stored: ReferenceValues | None = None,
) -> list[ParityRow]:
    """Compare each layer, the output end to end, and the loss if it is not None, with the side's ``own`` weights.

    Each layer of the reference gets the framework's inputs. ``whole`` is the reference's output, computed end to end. ``stored``
    are the values of a golden file, which are compared end to end, too. Raises NotComputable if the reference cannot compute a
    layer.
    """
    side.set_weights(own)
    last = side.reference.outputs[0]
    try:
        output, measured, outputs = side.predict(batch.features, batch.labels)
    except MultisegError:
        # the output may have another size than the labels; without labels the layers can still be compared
        output, measured, outputs = side.predict(batch.features, None)
    apart = last not in outputs and whole is not None
    outputs.setdefault(last, output)
    trace = reference.forward(side.reference, weights, batch.images, fitting(side.reference, outputs))
    rows = layers(side, trace, outputs, weights, mean)
    if apart:
        # the output is of another run, which may round otherwise: a copy of a layer is then compared end to end only
        rows = [row for row in rows if row.name != last or row.terms or row.ok]
    for name, value in (stored.layers if stored else {}).items():
        if name in outputs and name != last:
            rows.append(ParityRow.of(side.name, "stored", name, value, outputs[name]))
    if whole is not None:
        rows.append(ParityRow.of(side.name, "output", last, whole, side.output(batch.features)))
    if measured is None or loss is None:
        return rows
    if stored and stored.loss:
        kept = returned_loss(stored.loss, side.backend)
        rows.append(ParityRow.of(side.name, "stored", "loss", kept, np.asarray(measured)))
    with computed_in(FLOAT32):  # in every precision of the network
        values, _, _ = loss.at(trace, batch.labels)
        row = ParityRow.of(side.name, "loss", "loss", returned_loss(values, side.backend), np.asarray(measured))
        if not row.ok and np.isfinite(row.share):
            row = replace(row, words=of_loss(loss, trace, batch.labels, measured, side.backend.clips_losses))
    return [*rows, row]


def layers(
    side: ParitySide, trace: reference.Trace, outputs: Weights, weights: Weights, mean: object, explained: bool = True
) -> list[ParityRow]:
    """Compare the outputs of the layers with the reference; ``explained``: search for the cause of the first difference."""
    rows: list[ParityRow] = []
    for layer in side.reference.layers:
        for name in layer.outputs:
            if name not in outputs or layer.type not in RULES:
                continue
            row = ParityRow.of(side.name, "forward", name, trace.computed[name], outputs[name])
            if explained and not row.ok and all(each.ok for each in rows):
                words = of_layer(trace, layer, outputs, weights, outputs[name], mean)
                row = replace(row, words="; ".join(filter(None, [row.words, words])))
            rows.append(row)
    return rows


def returned_loss(values: list[Bounded], backend: Backend) -> Bounded:
    """Return the value of a loss that a backend returns: the first and exact one, or the last if it clips probabilities."""
    return values[-1 if backend.clips_losses else 0]


def fitting(topology: Topology, made: Weights) -> dict[str, Array]:
    """Return the layers' outputs that have the expected shape."""
    shapes = topology.shapes
    return {name: value for name, value in made.items() if value.shape[1:] == shapes[name]}


def gradients(
    side: ParitySide, batch: ParityBatch, weights: Weights, loss: Loss, stored: ReferenceValues | None = None,
    draws: Sequence[Drawn] = (),
) -> list[ParityRow]:  # fmt: skip
    """Compare the gradient of each parameter, from output to input. The side must have the solver of reference.gradient.

    Those of a golden file, ``stored``, are compared as well: their bounds are propagated from the images on. ``draws``: what
    dropout draws in this step, with the seed 0.
    """
    side.set_weights(weights)
    alternatives = (
        passes_with(draws, side, weights, batch, loss)
        if draws
        else passes(side, weights, batch, shown_by(side, batch), loss)
    )
    stage, title = ("dropout", GRADIENT_OF) if draws else ("gradient", "")
    after, alternatives = after_step(side, batch, gradient.RATE, 0, alternatives)

    def judged(training: Pass) -> tuple[None, list[ParityRow]]:
        found: list[ParityRow] = []
        for name, value in training.slopes.items():
            measured = gradient.from_step(weights[name], after[name])
            wide = replace(value, bound=value.bound + gradient.rounding(weights[name], value.value))
            row = ParityRow.of(side.name, stage, title + name, wide, measured)
            if not row.ok and all(other.ok for other in found):
                words = of_gradient(value, weights[name], measured)
                words = words or of_use(_uses(training.trace, batch, loss).get(name, {}), measured)
                row = replace(row, words=words or row.words)
            found.append(row)
        return None, found

    rows = agreeing(alternatives, judged)[1]
    for name, value in (stored.gradients if stored else {}).items():
        if name in after and name in side.trained:
            bound = value.bound + gradient.rounding(weights[name], value.value)
            measured = gradient.from_step(weights[name], after[name])
            row = ParityRow.of(side.name, "stored", GRADIENT_OF + name, replace(value, bound=bound), measured)
            rows.append(row)
    return rows


def shown_by(side: ParitySide, batch: ParityBatch) -> dict[str, Array]:
    output, _, made = side.predict(batch.features, batch.labels)
    return {side.reference.outputs[0]: output, **made}


def passes(side: ParitySide, weights: Weights, batch: ParityBatch, shown: Weights, loss: Loss) -> Iterator[Pass]:
    """Yield a training pass of the reference, from the framework's layer outputs if possible, then admissible alternatives.

    The rounding of a training pass may differ from that of the pass that returned the layer outputs. A ReLU input within rounding
    of 0 may then have the other sign, so both signs are tried for the inputs nearest to 0. Other layers, such as an ELU that a
    framework computes together with the convolution before it in training only, may differ by their rounding: at last the
    reference computes all layers itself, with the bounds that follow from the images on. So it does with batch statistics, where
    the outputs for prediction do not apply. The gradients are those of the parameters that the side trains.
    """
    topology = side.reference
    training = has_batch_statistics(topology)
    compute = partial(reference.forward, topology, weights, batch.images, training=training)
    yield from _passes(side, compute, {} if training else shown, topology, batch, loss)


def passes_with(
    draws: Sequence[Drawn], side: ParitySide, weights: Weights, batch: ParityBatch, loss: Loss
) -> Iterator[Pass]:
    """Yield the passes of :func:`passes` with what dropout draws, for each possible order of its elements."""
    for each in draws:
        topology = each.topology
        compute = partial(
            reference.forward, topology, weights, batch.images,
            training=has_batch_statistics(topology), more_images=each.factors,
        )  # fmt: skip
        yield from _passes(side, compute, each.values, topology, batch, loss)


def _passes(
    side: ParitySide, compute: Callable[..., reference.Trace], shown: Weights, topology: Topology, batch: ParityBatch, loss: Loss
) -> Iterator[Pass]:  # fmt: skip
    """Yield the passes that ``compute`` returns for the layer outputs ``shown`` and their alternatives."""

    def of(trace: reference.Trace) -> Pass:
        slopes = _slopes(trace, batch, loss)
        return Pass({name: value for name, value in slopes.items() if name in side.trained}, trace)

    trace = compute(given=shown)
    yield of(trace)
    if not shown:
        return
    doubtful = _doubtful(trace, shown)
    for count in range(1, len(doubtful) + 1):
        for chosen in itertools.combinations(doubtful, count):
            other = {name: value.copy() if name in dict(chosen) else value for name, value in shown.items()}
            for name, place in chosen:
                other[name].flat[place] = np.nextafter(np.float32(0), -shown[name].flat[place] or np.float32(1))
            yield of(compute(given=other))
    if all(layer.type in RULES for layer in topology.layers):
        yield of(compute())


def has_batch_statistics(topology: Topology) -> bool:
    return any(layer.type in BATCH_STATISTICS for layer in topology.layers)


def slopes_alone(topology: Topology, weights: Weights, batch: ParityBatch, loss: Loss) -> Slopes:
    """Return the reference's gradients of a training pass, without values from a framework. Raises NotComputable."""
    trace = reference.forward(topology, weights, batch.images, training=has_batch_statistics(topology))
    return _slopes(trace, batch, loss)


def _slopes(trace: reference.Trace, batch: ParityBatch, loss: Loss) -> Slopes:
    return reference.backward(*_loss_gradient(trace, batch, loss))


def _uses(trace: reference.Trace, batch: ParityBatch, loss: Loss) -> dict[str, dict[str, Bounded]]:
    """Return the gradient of each use of each parameter."""
    return reference.backward_by_use(*_loss_gradient(trace, batch, loss))


def _loss_gradient(trace: reference.Trace, batch: ParityBatch, loss: Loss) -> tuple[reference.Trace, Bounded]:
    """Return the pass whose output the loss compares, and the gradient of this output, as the network receives it."""
    with computed_in(FLOAT32):
        _, slope, end = loss.at(trace, batch.labels)
    return end, slope.as_result()


def after_step(
    side: ParitySide, batch: ParityBatch, rate: float, seed: int, alternatives: Iterator[Pass]
) -> tuple[dict[str, Array], Iterator[Pass]]:
    """Return the side's weights after one training step, and the passes, of which the first is computed meanwhile."""
    finish = side.begin_step(batch.features, batch.labels, rate, seed)
    try:
        first = next(alternatives)
    except BaseException:
        finish()
        raise
    return finish(), itertools.chain([first], alternatives)


def _doubtful(trace: reference.Trace, shown: Weights) -> list[tuple[str, int]]:
    """Return name and flat index of the ReLU inputs that are nearest to 0 relative to their rounding bound."""
    inputs: list[tuple[float, str, int]] = []
    for name in {layer.inputs[0] for layer in trace.topology.layers if layer.type in KINKED}:
        if name in shown and not trace.computed[name].exact:
            ratio = np.abs(shown[name].ravel()) / (np.ravel(trace.computed[name].bound) + TINY)
            nearest = ratio.argpartition(min(DOUBTS, ratio.size - 1))[:DOUBTS]
            inputs += [(float(ratio[place]), name, int(place)) for place in nearest if ratio[place] <= 1]
    return [(name, place) for _, name, place in sorted(inputs)[:DOUBTS]]


def agreeing(
    alternatives: Iterable[Pass], judged: Callable[[Pass], tuple[T, list[ParityRow]]]
) -> tuple[T, list[ParityRow]]:
    """Return the result for the first of the alternative passes with which all rows agree; if none does, for the first one."""
    first_result: tuple[T, list[ParityRow]] | None = None
    for training in alternatives:
        result = judged(training)
        if all(row.ok for row in result[1]):
            return result
        first_result = first_result or result
    assert first_result is not None
    return first_result
