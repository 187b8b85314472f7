"""Explain a loss that differs: try each common mistake, and name the one that reproduces the framework's value.

The mistakes are another normalisation, other class weights or parameters, another ignored label, labels in another order or
numbering, and another loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from multiseg import reference
from multiseg.network import CLASSES
from multiseg.parity.loss import Loss
from multiseg.reference.bounded import TINY, Array
from multiseg.settings.losses import LOSSES

Try = tuple[str, Loss, Array, float]  # words, loss, labels, factor
MOST = 32  # classes that are tried one by one


def of_loss(loss: Loss, trace: reference.Trace, labels: Array, measured: float, clipped: bool) -> str | None:
    """Describe the mistake that reproduces the value ``measured`` of a loss, None if no common one does.

    ``clipped``: whether the framework clips probabilities.
    """
    for words, other, other_labels, factor in _mistakes(loss, trace, labels):
        try:
            value = other.at(trace, other_labels)[0][-1 if clipped else 0]
        except (reference.NotComputable, IndexError, KeyError, ValueError):
            continue
        if abs(measured - factor * float(value.value)) <= abs(factor) * float(np.max(value.bound)) + TINY:
            return f"it agrees {words}"
    return None


def _mistakes(loss: Loss, trace: reference.Trace, labels: Array) -> Iterator[Try]:
    of_classes = LOSSES[loss.name].labels == CLASSES if loss.name is not None else loss.classes
    classes = trace.output.value.shape[1] if of_classes else 0
    if loss.weights:
        yield "without class weights", replace(loss, weights=()), labels, 1
        yield "with the class weights in reverse order", replace(loss, weights=loss.weights[::-1]), labels, 1
    if of_classes:
        yield from _other_classes(loss, labels, classes)
    for words, other in _other_labels(labels):
        yield f"if the labels are {words}", loss, other, 1
    yield from _other_parameters(loss, labels)
    for words, factor in _factors(loss, labels, of_classes).items():
        yield words, loss, labels, factor
    if loss.name is not None:
        for name in LOSSES:
            if name != loss.name and LOSSES[name].labels == LOSSES[loss.name].labels:
                yield f"with the loss {name}", replace(loss, name=name, options=LOSSES[name].parameters), labels, 1


def _other_classes(loss: Loss, labels: Array, classes: int) -> Iterator[Try]:
    """Yield other numbers of classes, and other labels that do not count."""
    counts = ~np.isin(labels, list(loss.ignored))
    for shift, words in ((1, "high"), (-1, "low")):
        shifted = np.where(counts, (labels + shift) % classes, labels)
        yield f"with each class one too {words}", loss, shifted, 1
    if loss.ignored:
        yield f"if {_listed(loss.ignored)} is not ignored", replace(loss, ignored=frozenset()), labels, 1
    for number in range(min(classes, MOST)):
        if number not in loss.ignored:
            instead = f", not {_listed(loss.ignored)}" if loss.ignored else ""
            yield f"if {number} is ignored{instead}", replace(loss, ignored=frozenset({number})), labels, 1


def _listed(ignored: frozenset[int]) -> str:
    return " and ".join(map(str, sorted(ignored)))


def _other_labels(labels: Array) -> Iterator[tuple[str, Array]]:
    if labels.shape[2] == labels.shape[3]:
        yield "transposed (height and width exchanged)", labels.swapaxes(2, 3)
    yield "upside down", labels[:, :, ::-1]
    yield "mirrored", labels[..., ::-1]
    yield "in reverse order of their channels", labels[:, ::-1]
    yield "those of the images in reverse order", labels[::-1]
    yield "divided by 255", labels / 255


def _other_parameters(loss: Loss, labels: Array) -> Iterator[Try]:
    for key, value in loss.options.items():
        for other in dict.fromkeys((value / 2, value * 2, 1.0, 255.0)):
            if other != value:
                words = f"with {key} {other:g} (here {value:g})"
                yield words, replace(loss, options={**loss.options, key: other}), labels, 1


def _factors(loss: Loss, labels: Array, of_classes: bool) -> Mapping[str, float]:
    """Return the ratios of other normalisations to that of the loss, the mean over the labels that count."""
    counts = ~np.isin(labels, list(loss.ignored))
    counted = max(int(counts.sum()), 1)
    factors = {
        "as a sum instead of a mean": float(counted),
        "as a sum divided by the number of images": counted / len(labels),
        "as a sum divided by the number of all labels": counted / labels.size,
    }
    if loss.weights and of_classes:
        total = float(np.asarray(loss.weights)[labels[counts].astype(int)].sum())
        factors["divided by the sum of the labels' weights"] = counted / total
    return {words: factor for words, factor in factors.items() if factor != 1}
