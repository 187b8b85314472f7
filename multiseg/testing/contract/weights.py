"""Tests of weights: neutral names and axes, exact values, and copies at the interface."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from multiseg.errors import ModelError
from multiseg.testing.bench import Bench
from multiseg.testing.bench import Weights as Arrays
from multiseg.testing.comparing import refused, same_bits
from multiseg.testing.contract.subject import Subject


class Weights(Subject):
    """Tests of getting and setting weights and solver state."""

    @pytest.mark.parametrize("predict_only", [True, False])
    def test_weights_come_back_as_they_were_given(self, bench: Bench, predict_only: bool) -> None:
        bench.load(predict_only=predict_only)
        own, draw = bench.weights, np.random.default_rng(1)
        given = {name: draw.standard_normal(value.shape).astype(np.float32) for name, value in own.items()}
        for value in given.values():
            value.flat[0] = -0.0
            value.flat[-1] = 2.0**-126
        bench.weights = given
        same_bits(bench.weights, given, "get_weights after set_weights")
        backwards = dict(reversed(given.items()))
        bench.weights = backwards
        same_bits(bench.weights, given, "get_weights after set_weights in another order of names")

    def test_arrays_are_copies(self, bench: Bench) -> None:
        problems = bench.inside(
            "copies", spec=bench.spec(loss="l2").to_json(), **bench.batch(), others=bench.batch(4, seed=1)["features"],
            rate=1.0,
        )  # fmt: skip
        assert not problems, "\n".join(problems)

    def test_weights_that_do_not_fit_are_refused_by_name(self, bench: Bench) -> None:
        bench.load(predict_only=True)
        own = bench.begin()
        first = next(iter(own))
        reshaped = np.zeros((*own[first].shape, 2), np.float32)
        unfitting: dict[str, tuple[Arrays, str]] = {
            "missing": ({name: value for name, value in own.items() if name != first}, first),
            "unknown": ({**own, "nowhere.bias": own[first]}, "nowhere.bias"),
            "reshaped": ({**own, first: reshaped}, str(reshaped.shape)),
        }
        for kind, (weights, words) in unfitting.items():
            what = f"set_weights: {kind} weights must be a ModelError that says {words}"
            refused(partial(setattr, bench, "weights", weights), ModelError, words, what)
        same_bits(bench.weights, own, "weights after others were refused")

    def test_a_solvers_state_that_does_not_fit_is_refused_by_name(self, bench: Bench) -> None:
        bench.load(solver="sgd", recipe="equal")
        own = bench.begin()
        bench.step(bench.batch(), 2.0**-6)
        state = bench.state
        slots = {name.rpartition("/")[2] for name in state if name != "steps"}
        assert slots == set(bench.described["trained"]), (
            f"get_weights(state=True): has slots of {sorted(slots)}; what sgd moves is {sorted(bench.described['trained'])}"
        )
        first = next(iter(state))
        unfitting: dict[str, tuple[Arrays, str]] = {
            "missing": ({name: value for name, value in state.items() if name != first}, first),
            "unknown": ({**state, "momentum/nowhere.bias": state[first]}, "momentum/nowhere.bias"),
            "reshaped": ({**state, first: np.zeros((*state[first].shape, 2), np.float32)}, first),
        }
        for kind, (given, words) in unfitting.items():
            what = f"set_weights: {kind} state of a solver must be a ModelError that says {words}"
            refused(partial(bench.call, "set_weights", weights=own, state=given), ModelError, words, what)
        same_bits(bench.state, state, "the solver's state after others were refused")

    def test_every_parameter_has_a_part_in_the_output(self, bench: Bench) -> None:
        bench.load(predict_only=True)
        own, images = bench.begin(), bench.images()
        output, _ = bench.predict(images)
        for name, value in own.items():
            bench.weights = {**own, name: value + np.float32(0.5)}
            changed, _ = bench.predict(images)
            assert not np.array_equal(changed, output), f"set_weights: {name!r} changes nothing that is predicted"
