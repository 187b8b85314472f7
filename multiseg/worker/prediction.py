"""Predict batches so that the answer for an image does not depend on the other images of its batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Optional, TypeVar

import numpy as np

from multiseg.network import Array, LossTerms, Network, joined, loss_of

TOLERANCE = 1e-3  # of the largest output: above rounding, below the effect of other images' statistics
T = TypeVar("T")
Answer = tuple[Array, Optional[float], Mapping[str, Array]]  # noqa: UP045 - worker code runs on Python 3.9


class Prediction:
    """Calls ``predict`` of a network: on batches, or image by image if the network's answers depend on the other images.

    That is so for batch normalisation by the statistics of the batch. It is measured rather than read from the description, which
    cannot tell for every operation: after each change of the weights, the first image of the first batch is predicted alone, too,
    and if activations are asked for, these are compared as well: the layers after such a one may hide it from the output.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.checked: set[bool] = set()  # for outputs alone (False), with activations (True)
        self.one_by_one = False

    def weights_changed(self) -> None:
        """Compare again: with other weights, such as initial zeros, a network may hide its dependence."""
        self.checked.clear()

    def predict(self, features: Array, labels: Array | None, activations: bool = False) -> Answer:
        """See multiseg.network.Network.predict; the loss of images that are predicted one by one is that of all their labels."""
        answers = self._answers(partial(self.network.predict, activations=activations), features, labels, activations)
        if len(answers) == 1:
            return answers[0]
        loss = None
        if labels is not None and answers[0][1] is not None:
            # not the mean of their losses: images may have unequal numbers of labels that count
            loss = loss_of(self.evaluate(features, labels)[1])
        return (
            np.concatenate([output for output, _, _ in answers]),
            loss,
            joined([values for _, _, values in answers]),
        )

    def evaluate(self, features: Array, labels: Array) -> tuple[Array, LossTerms]:
        """See multiseg.network.Network.evaluate; terms of images that are predicted one by one are added."""
        answers = self._answers(self.network.evaluate, features, labels)
        if len(answers) == 1:
            return answers[0]
        terms = [
            (sum(total for total, _ in same), sum(count for _, count in same))
            for same in zip(*(terms for _, terms in answers))  # noqa: B905 - worker code runs on Python 3.9
        ]
        return np.concatenate([output for output, _ in answers]), terms

    def _answers(
        self, compute: Callable[..., T], features: Array, labels: Array | None, activations: bool = False
    ) -> list[T]:
        """Return the answer of ``compute`` for the batch, or one for each image; an answer begins with the outputs."""
        if not self.one_by_one or len(features) < 2:
            answer: Any = compute(features, labels)
            made = [answer[0], *(answer[2].values() if activations else ())]
            if len(features) < 2 or not self._depends_on_batch(features, labels, made, activations):
                return [answer]
            self.one_by_one = True
        places = (slice(index, index + 1) for index in range(len(features)))
        return [compute(features[place], None if labels is None else labels[place]) for place in places]

    def _depends_on_batch(self, features: Array, labels: Array | None, made: list[Array], activations: bool) -> bool:
        if activations in self.checked or np.array_equal(features[1:], features[:-1]):
            return False
        output, _, seen = self.network.predict(features[:1], None if labels is None else labels[:1], activations)
        if _comparable(made[0][:1]) and (output.shape != made[0][:1].shape or _differ(output, made[0][:1])):
            return True
        pairs = zip(seen.values(), made[1:])  # noqa: B905 - worker code runs on Python 3.9
        if any(alone.shape == among[:1].shape and _differ(alone, among[:1]) for alone, among in pairs):
            return True
        if _comparable(made[0][:1]):
            self.checked.add(activations)
        return False


def _comparable(values: Array) -> bool:
    """Whether values can show a difference: they are finite, and not all 0."""
    largest = np.abs(np.asarray(values, np.float64)).max(initial=0)
    return bool(np.isfinite(largest) and largest > 0)


def _differ(alone: Array, among: Array) -> bool:
    """Whether the values of an image predicted alone differ from those among others by more than rounding.

    A graph may also compute booleans and unsigned integers, which have no differences of their own.
    """
    if not _comparable(among):
        return False
    alone, among = np.asarray(alone, np.float64), np.asarray(among, np.float64)
    return bool(np.abs(alone - among).max() > TOLERANCE * np.abs(among).max())
