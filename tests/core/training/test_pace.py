"""How many steps go into one message."""

from __future__ import annotations

import numpy as np
import pytest

from multiseg.training.pace import MOST, MOST_BYTES, SECONDS, Pace

SMALL = {"features": np.zeros((4, 1, 32, 32), np.float32), "labels": np.zeros((4, 1, 32, 32), np.float32), "rate": 0.1}


def test_the_first_step_is_sent_alone_and_the_number_at_most_doubles() -> None:
    pace, numbers = Pace(), []
    for _ in range(9):
        numbers.append(pace.steps(SMALL))
        pace.took(numbers[-1], 1e-4 * numbers[-1])
    assert numbers == [1, 2, 4, 8, 16, 32, MOST, MOST, MOST]


def test_a_short_message_at_the_end_of_an_epoch_makes_the_next_ones_no_shorter() -> None:
    pace = Pace()
    for _ in range(5):
        pace.took(pace.steps(SMALL), 1e-4)
    before = pace.steps(SMALL)
    pace.took(1, 1e-4)
    assert pace.steps(SMALL) >= before == 32


@pytest.mark.parametrize(
    ("seconds", "number"), [(SECONDS * 2, 1), (SECONDS, 1), (SECONDS / 2.5, 2), (SECONDS / 7.5, 7)]
)
def test_the_steps_of_a_message_take_a_tenth_of_a_second_at_most_or_are_one(seconds: float, number: int) -> None:
    pace = Pace()
    for _ in range(9):
        steps = pace.steps(SMALL)
        pace.took(steps, seconds * steps)
    assert pace.steps(SMALL) == number


def test_a_message_holds_few_large_batches() -> None:
    pace = Pace()
    for steps in (1, 2, 4, 8):
        pace.took(steps, 0.0)
    assert pace.steps(SMALL) == 16
    half = np.zeros(MOST_BYTES // 8, np.float32)
    assert pace.steps({"features": half, "labels": half[:0]}) == 2
    assert pace.steps({"features": half, "labels": half, "rate": 0.1}) == 1
    assert pace.steps({"features": np.zeros(MOST_BYTES, np.float32)}) == 1
