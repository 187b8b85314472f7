"""Learning-rate policies at 1,000 points each, against Caffe's formulas and DIGITS' conversion of percents, written out here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from multiseg.errors import SettingsError
from multiseg.settings.schedules import POLICIES, Schedule

BASE = 0.01


def steps(percent: float, max_iter: int) -> int:
    """DIGITS, digits/model/tasks/caffe_train.py: percent times a hundredth of all iterations, rounded up."""
    scale = float(max_iter) / 100.0
    return math.ceil(float(percent) * scale)


# sgd_solver.cpp, GetLearningRate, with the parameters as DIGITS gives them to Caffe: (base_lr, iter, max_iter) -> rate
def fixed(base_lr: float, it: int, max_iter: int) -> float:
    return base_lr


def step(base_lr: float, it: int, max_iter: int, percent: float = 33, gamma: float = 0.1) -> float:
    current_step = it // steps(percent, max_iter)
    return base_lr * math.pow(gamma, current_step)


def exp(base_lr: float, it: int, max_iter: int, gamma: float = 0.95) -> float:
    caffe_gamma = math.pow(gamma, 1.0 / (max_iter / 100.0))
    return base_lr * math.pow(caffe_gamma, it)


def inv(base_lr: float, it: int, max_iter: int, gamma: float = 0.1, power: float = 0.5) -> float:
    caffe_gamma = gamma / (max_iter / 100.0)
    return base_lr * math.pow(1 + caffe_gamma * it, -power)


def multistep(base_lr: float, it: int, max_iter: int, values: Any = (50, 85), gamma: float = 0.5) -> float:
    current_step = 0
    for value in values:
        if it >= steps(value, max_iter):
            current_step += 1
    return base_lr * math.pow(gamma, current_step)


def poly(base_lr: float, it: int, max_iter: int, power: float = 3) -> float:
    return base_lr * math.pow(1 - it / max_iter, power)


def sigmoid(base_lr: float, it: int, max_iter: int, percent: float = 50, gamma: float = 0.1) -> float:
    caffe_gamma = -gamma / (max_iter / 100.0)
    return base_lr * (1 / (1 + math.exp(-caffe_gamma * (it - steps(percent, max_iter)))))


FORMULAS: dict[str, Callable[..., float]] = {
    "fixed": fixed, "step": step, "multistep": multistep, "exp": exp, "inv": inv, "poly": poly, "sigmoid": sigmoid,
    "linear": lambda base_lr, it, max_iter: poly(base_lr, it, max_iter, 1),
}  # fmt: skip


def points(iterations: int) -> list[int]:
    """1,000 iterations: all of the way, first and last among them."""
    return [round(i * (iterations - 1) / 999) for i in range(1000)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("iterations", [1000, 1234, 337_500])  # the last: the tutorial's in Caffe
def test_rates_are_caffes_at_1000_points(policy: str, iterations: int) -> None:
    schedule = Schedule.of(policy)
    formula = FORMULAS[policy]
    for i in points(iterations):
        assert schedule.rate(BASE, i, iterations) == pytest.approx(formula(BASE, i, iterations), rel=1e-9, abs=0)


@pytest.mark.parametrize(("given", "formula"), [
    ({"policy": "step", "step": 12.5, "gamma": 0.7}, lambda *at: step(*at, 12.5, 0.7)),
    ({"policy": "multistep", "stepvalues": [10, 33.3, 99], "gamma": 0.3}, lambda *at: multistep(*at, (10, 33.3, 99), 0.3)),
    ({"policy": "exp", "gamma": 0.999}, lambda *at: exp(*at, 0.999)),
    ({"policy": "inv", "gamma": 1e-4, "power": 0.75}, lambda *at: inv(*at, 1e-4, 0.75)),
    ({"policy": "poly", "power": 0.9}, lambda *at: poly(*at, 0.9)),
    ({"policy": "sigmoid", "step": 25, "gamma": 0.01}, lambda *at: sigmoid(*at, 25, 0.01)),
])  # fmt: skip
def test_rates_are_caffes_with_other_parameters_too(given: dict[str, Any], formula: Callable[..., float]) -> None:
    schedule = Schedule.of(given)
    for i in points(1777):
        assert schedule.rate(BASE, i, 1777) == pytest.approx(formula(BASE, i, 1777), rel=1e-9, abs=0)


def test_a_warm_up_rises_in_a_line_to_the_policys_rate() -> None:
    warm, plain = Schedule.of({"policy": "poly", "warmup": 10}), Schedule.of("poly")
    for i in range(1000):
        part = (i + 1) / 100 if i < 100 else 1
        assert warm.rate(BASE, i, 1000) == pytest.approx(part * plain.rate(BASE, i, 1000))
    assert Schedule.of(warm.to_json()) == warm


def test_linear_decay_ends_one_step_above_nothing() -> None:
    assert Schedule.of("linear").rate(1.0, 999, 1000) == pytest.approx(0.001)


@pytest.mark.parametrize(("policy", "words"), [
    ({"policy": "step", "gamma": None, "step": 0}, ["gamma is missing; DIGITS' default is 0.1", "step=0: must be percent"]),
    ({"policy": "step", "step": 101}, ["step=101: must be percent of all iterations"]),
    ({"policy": "multistep", "stepvalues": [50, 20]}, ["stepvalues=[50, 20]: must rise"]),
    ({"policy": "multistep", "stepvalues": []}, ["stepvalues=[]: must be"]),
    ({"policy": "exp", "gamma": -1}, ["gamma=-1: must be above 0"]),
    ({"policy": "exp", "gamma": float("nan")}, ["must be finite"]),
    ({"policy": "fixed", "warmup": 200}, ["warmup=200"]),
    ({"policy": "inv", "steps": 1, "power": "x"}, ["has no parameter 'steps'", "power must be a number"]),
])  # fmt: skip
def test_all_that_is_wrong_with_a_policy_is_said(policy: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Schedule.of(policy)
    assert all(re.search(re.escape(word), str(caught.value)) for word in words), str(caught.value)


# values by hand from Caffe's formulas, 1,000 iterations, base rate 1


@pytest.mark.parametrize(
    ("policy", "iteration", "rate"),
    [
        ("fixed", 999, 1),
        (None, 329, 1),  # DIGITS' default: step at 33 %
        (None, 330, 0.1),
        (None, 660, 0.01),
        (None, 999, 0.001),
        ({"policy": "step", "step": 25, "gamma": 0.5}, 500, 0.25),
        ("multistep", 499, 1),
        ("multistep", 500, 0.5),
        ("multistep", 850, 0.25),
        ("exp", 20, 0.9025),  # two percent on
        ("inv", 300, 0.5),
        ("poly", 500, 0.125),
        ("sigmoid", 500, 0.5),
        ("sigmoid", 0, 1 / (1 + math.exp(-5))),
        ("sigmoid", 700, 1 / (1 + math.e**2)),
        ("linear", 0, 1),
        ("linear", 750, 0.25),
    ],
)
def test_rates_follow_caffes_formulas(policy: Any, iteration: int, rate: float) -> None:
    assert Schedule.of(policy).rate(1.0, iteration, 1000) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("stepp", "unknown lr_policy 'stepp'; known are: fixed, step"),
        ({"policy": "step", "power": 2}, "has no parameter 'power'; it takes: step, gamma"),
        ({"policy": "step", "gamma": "x"}, "gamma must be a number, not 'x'"),
        ({"policy": "step", "step": [1, 2]}, "step must be a number"),
        ({"policy": "multistep", "stepvalues": 50}, "stepvalues must be a list of numbers"),
        ({"policy": "multistep", "stepvalues": "12"}, "stepvalues must be a list of numbers, not '12'"),
        ({"gamma": 1}, "unknown lr_policy None"),
        ({"policy": [1]}, "unknown lr_policy [1]"),
    ],
)
def test_bad_policies_are_named(policy: Any, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Schedule.of(policy)
    assert words in str(caught.value)
