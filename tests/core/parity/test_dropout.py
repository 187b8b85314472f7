"""What dropout multiplies by is judged: values, the share of zeros, whole channels. No framework is needed."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from multiseg.parity import dropout
from multiseg.parity.rows import ParityRow
from multiseg.topology import Topology

RATIO = 0.3


def topology(ratio: float = RATIO, **parameters: Any) -> Topology:
    layer = {"name": "drop", "type": "Dropout", "inputs": ["data"], "parameters": {"ratio": ratio, **parameters}}
    return Topology.of(
        "small.net", "test", {"input": "data", "input_shape": (8, 5, 6), "layers": [layer], "outputs": ["drop"]}
    )


def row(factors: Any, **parameters: Any) -> ParityRow:
    (found,) = dropout.rows("framework", topology(**parameters), {"drop": np.asarray(factors, np.float32)})
    return found


def drawn(share: float = RATIO, shape: tuple[int, ...] = (4, 8, 5, 6), kept: float = 1 / (1 - RATIO)) -> Any:
    return np.where(np.random.default_rng(1).random(shape) < share, 0, kept)


@pytest.mark.parametrize("seed", range(20))
def test_what_dropout_draws_is_right(seed: int) -> None:
    draw = np.random.default_rng(seed)
    assert row(np.where(draw.random((4, 8, 5, 6)) < RATIO, 0, np.float32(1) / np.float32(0.7))).ok
    channels = np.where(draw.random((4, 8, 1, 1)) < RATIO, 0, 1 / 0.7)
    assert row(channels, channelwise=True).ok
    assert row(np.broadcast_to(channels, (4, 8, 5, 6)), channelwise=True).ok


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "not scaled": (drawn(kept=1), {}, "its factors are 0, 1 instead of 0 and 1.42857"),
    "scaled as if for the kept": (drawn(kept=1 / RATIO), {}, "its factors are 0, 3.33333"),
    "off": (np.ones((4, 8, 5, 6)), {}, "it drops nothing in training"),
    "share": (drawn(0.5), {}, "of 960 values; the ratio is 0.3"),
    "the share that is kept": (drawn(0.7), {}, "the ratio is 0.3"),
    "nothing dropped, but scaled": (drawn(0.0), {}, "drops 0 of 960"),
    "channels": (np.broadcast_to(drawn(shape=(4, 8, 1, 1)), (4, 8, 5, 6)), {}, "drops whole channels, not elements"),
    "one factor a channel": (drawn(shape=(4, 8, 1, 1)), {}, "drops whole channels, not elements"),
    "elements": (drawn(), {"channelwise": True}, "drops elements, not whole channels"),
    "shape": (drawn(shape=(4, 8, 5, 5)), {}, "has the shape (8, 5, 5), not (8, 5, 6)"),
    "another value": (drawn() + 0.001, {}, "instead of 0 and 1.42857"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_draws_are_found(mistake: str) -> None:
    factors, parameters, words = WRONG[mistake]
    found = row(factors, **parameters)
    assert not found.ok
    assert words in (found.words or "")


def test_a_dropout_that_is_missing_or_too_many_is_found() -> None:
    missing, further = dropout.rows("framework", topology(), {"other": drawn()})
    assert (missing.name, missing.ok) == ("drop", False)
    assert (further.name, further.ok) == ("other", False)


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("count", [1, 7, 60, 240])
def test_the_chance_of_a_false_alarm_is_negligible(ratio: float, count: int) -> None:
    """Summed exactly over all numbers of zeros that are an alarm; one that is not has a chance that is not negligible."""
    exact, alarms, nearest = Fraction(ratio), Fraction(0), Fraction(1)
    for zeros in range(count + 1):
        chance = math.comb(count, zeros) * exact**zeros * (1 - exact) ** (count - zeros)
        factors = np.full((1, count), 1 / (1 - ratio))
        factors[0, :zeros] = 0
        layer = {"name": "drop", "type": "Dropout", "inputs": ["data"], "parameters": {"ratio": ratio}}
        vector = Topology.of(
            "small.net", "test", {"input": "data", "input_shape": (count,), "layers": [layer], "outputs": ["drop"]}
        )
        (found,) = dropout.rows("framework", vector, {"drop": factors.astype(np.float32)})
        if found.ok:
            nearest = min(nearest, chance)
        else:
            alarms += chance
    assert alarms < Fraction(2, 10**15)
    assert count < 60 or nearest < Fraction(1, 10**9)  # the test is not an idle one
