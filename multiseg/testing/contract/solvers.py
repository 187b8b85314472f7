"""Tests of the solvers of the recipe `equal`, step by step against their formulas; multipliers, freezing, accumulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from multiseg.errors import SettingsError
from multiseg.reference import Bounded
from multiseg.reference.gradient import rounding
from multiseg.reference.solvers import Solver
from multiseg.settings.solvers import NEUTRAL
from multiseg.testing.bench import PLAIN, Bench, Weights
from multiseg.testing.comparing import close, refused, same_bits
from multiseg.testing.contract.subject import Subject

Doubles = dict[str, npt.NDArray[np.float64]]

RATES = (1.0, 0.5, 2.0, 0.25, 1.0)  # of the steps; varied to detect a solver that stores the rate in its state
SLOTS = {  # as in docs/solvers.md
    "sgd": ("momentum",), "nesterov": ("momentum",), "adagrad": ("square_sum",), "rmsprop": ("square",),
    "adadelta": ("square", "delta"), "adam": ("mean", "square"),
}  # fmt: skip
COUNTS = (4, 4, 3, 4, 1)  # images; an epoch's last batch is smaller


class Solvers(Subject):
    """Tests of weight updates."""

    def test_a_solver_follows_its_rule(self, bench: Bench, rule: str) -> None:
        """Compare each step with its formula in float64, from the actual weights before it; also with decay and multipliers.

        The gradient is the backend's own, which another test compares with the loss. The only difference between the actual
        and the expected weights is then the rounding of a single step, which detects any deviation from the formula.
        """
        bench.load(**PLAIN)
        start = bench.begin()
        averages = bench.averages()
        trained = [name for name in start if name not in averages]
        w, g = _size(start, trained), _size(bench.gradient(bench.batch()), trained)
        assert g > 0, "train_step: a step of plain SGD moves no weight"
        options = dict(NEUTRAL[rule].options)
        # each step is about 2 % of the weights' size, and delta as large as its addend, to detect a misplaced delta
        rate = 0.02 * w / g if rule in ("sgd", "nesterov", "adadelta") else 0.02 * w
        if "delta" in options:
            options["delta"] = g**2 if rule == "adadelta" else g
        layer = trained[0].rpartition(".")[0]
        ways = [
            _walk(bench, start, rule, rate, options, {}),
            _walk(bench, start, rule, rate, {**options, "weight_decay": g / w},
                  {"*": {"decay": 1}, f"{layer}.*": {"lr": 0.5}, "*.bias": {"decay": 0}}),
        ]  # fmt: skip
        bench.load(**PLAIN)
        for way in ways:
            _check(bench, way, trained)

    def test_frozen_layers_stay_to_the_bit(self, bench: Bench) -> None:
        """Freeze every second layer, then the others; with weight decay and running averages."""
        bench.load()
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in bench.weights))
        if len(layers) < 2:
            pytest.skip("the network has one layer of weights")
        for frozen in (layers[::2], layers[1::2]):
            bench.load(freeze=frozen, solver_options={"weight_decay": 0.1}, loss="l2")
            before = bench.begin()
            for step in range(2):
                bench.step(bench.batch(seed=step), 0.1, seed=step)
            after = bench.weights
            kept = [name for name in before if name.rpartition(".")[0] in frozen]
            same_bits(
                {name: after[name] for name in kept}, {name: before[name] for name in kept}, f"layers frozen, {frozen}"
            )
            for layer in set(layers) - set(frozen):
                names = [name for name in before if name.rpartition(".")[0] == layer]
                assert any(not np.array_equal(before[name], after[name]) for name in names), (
                    f"freeze={frozen}: {layer!r} is not frozen, and is not trained"
                )

    def test_patterns_that_leave_nothing_are_refused(self, bench: Bench) -> None:
        what = "multipliers, freeze: what matches nothing must be a SettingsError (see multiseg.network.factors)"
        nowhere = {"nowhere.*": {"lr": 2}}
        refused(lambda: bench.load(multipliers=nowhere), SettingsError, "multipliers='nowhere.*'", what)
        refused(lambda: bench.load(freeze=["*"]), SettingsError, "leaves no layer to train", what)

    def test_accumulated_batches_count_by_their_images(self, bench: Bench) -> None:
        """Accumulate over batches of two: the gradient is the average over all images."""
        bench.load(**PLAIN)
        own, counts = bench.begin(), (6, 5, 1)
        if bench.step(bench.batch(), 0.0, seed=1) != bench.step(bench.batch(), 0.0, seed=2):
            pytest.skip("the network draws at random while it trains: its batches cannot be had one by one")
        averages = bench.averages()
        expected: list[tuple[float, Doubles]] = []
        for count in counts:
            loss, gradients = 0.0, {name: np.zeros(value.shape) for name, value in own.items() if name not in averages}
            for at in range(0, count, 2):
                part = {name: array[at : at + 2] for name, array in bench.batch(count).items()}
                share = len(part["features"]) / count
                bench.weights = own
                loss += share * bench.step(part, 0.0)
                bench.weights = own
                found = bench.gradient(part)
                gradients = {name: value + share * found[name] for name, value in gradients.items()}
            expected.append((loss, gradients))
        bench.load(**PLAIN, batch_size=2, accumulate=3)
        for count, (loss, gradients) in zip(counts, expected, strict=True):
            context = f"accumulate=3, batch_size=2, {count} images"
            bench.weights = own
            whole_loss = bench.step(bench.batch(count), 0.0)
            assert whole_loss == pytest.approx(loss, rel=1e-5), f"{context}: the loss is the mean over all images"
            bench.weights = own
            found = bench.gradient(bench.batch(count))
            tolerance = 1e-5 * max(float(np.abs(value).max()) for value in gradients.values())
            for name, gradient in gradients.items():
                close(
                    found[name],
                    gradient,
                    tolerance,
                    f"{context}: the gradient by {name!r}, the average over all of them,",
                )

    def test_lowering_changes_no_gradient(self, bench: Bench) -> None:
        found: list[Doubles] = []
        for lowering in (False, True):
            bench.load(**PLAIN, lowering=lowering)
            own = bench.begin()
            averages = bench.averages()
            bench.weights = own
            found.append(bench.gradient(bench.batch(3)))
        for name, plain in found[0].items():
            if name not in averages:
                largest = max(float(np.abs(value).max()) for value in found[0].values())
                close(found[1][name], plain, 1e-5 * largest, f"the gradient by {name!r} with lowering")


@dataclass
class _Way:
    """The weights before and after each step of a solver, and its settings."""

    rule: str
    rate: float
    options: Mapping[str, float]
    multipliers: Mapping[str, Mapping[str, float]]
    weights: list[Weights]
    state: Weights = field(default_factory=dict)  # of the solver, at the end


def _walk(
    bench: Bench, start: Weights, rule: str, rate: float, options: Mapping[str, float],
    multipliers: Mapping[str, Mapping[str, float]],
) -> _Way:  # fmt: skip
    bench.load(recipe="equal", solver=rule, solver_options=options, multipliers=multipliers, loss="l2")
    bench.weights = start
    way = _Way(rule, rate, options, multipliers, [start])
    for at, times in enumerate(RATES):
        bench.step(bench.batch(COUNTS[at], seed=at), times * rate, seed=at)
        way.weights.append(bench.weights)
    way.state = bench.state
    return way


def _check(bench: Bench, way: _Way, names: list[str]) -> None:
    """Compare each step with the formula, using the network's own gradient."""
    __tracebackhide__ = True
    factors: dict[str, tuple[float, float]] = {}
    for name in names:
        matching = [values for pattern, values in way.multipliers.items() if fnmatchcase(name, pattern)]
        multipliers = {key: value for values in matching for key, value in values.items()}
        factors[name] = multipliers.get("lr", 1.0), multipliers.get("decay", 1.0) * way.options.get("weight_decay", 0.0)
    solvers = {name: Solver(way.rule, {**way.options, "weight_decay": decay}) for name, (_, decay) in factors.items()}
    for at, times in enumerate(RATES):
        bench.weights = way.weights[at]
        gradients = bench.gradient(bench.batch(COUNTS[at], seed=at), seed=at)
        for name, solver in solvers.items():
            before, gradient, rate = way.weights[at][name], gradients[name], times * way.rate * factors[name][0]
            off = rounding(before, gradient)
            expected = solver.step({name: before}, {name: Bounded(gradient, off)}, rate)[name]
            close(
                way.weights[at + 1][name], expected.value, expected.bound,
                f"{name!r} after step {at + 1} of {way.rule} by the recipe equal (docs/solvers.md) with {dict(way.options)}"
                f"{f', multipliers {way.multipliers}' if way.multipliers else ''}, at a rate of {times * way.rate:.3g} that "
                "changes from step to step",
            )  # fmt: skip
    for name, solver in solvers.items():
        for slot, kept in zip(SLOTS[way.rule], solver.state[name], strict=False):
            key = f"{slot}/{name}"
            assert key in way.state, f"get_weights(state=True): {way.rule} keeps {key!r}; it has {', '.join(way.state)}"
            # the error of the state is that of the gradients of all steps so far
            allowed = np.asarray(kept.bound) + 1e-6 * float(np.abs(kept.value).max(initial=0))
            close(
                way.state[key],
                kept.value,
                allowed,
                f"get_weights(state=True): {key!r} after {len(RATES)} steps of {way.rule}",
            )
    if way.rule == "adam":
        assert way.state.get("steps") == len(RATES), f"get_weights(state=True): 'steps' must be {len(RATES)}"


def _size(arrays: Mapping[str, npt.NDArray[Any]], names: list[str]) -> float:
    """Return the root mean square of all values."""
    squares = sum(float(np.square(arrays[name], dtype=np.float64).sum()) for name in names)
    return float(np.sqrt(squares / sum(arrays[name].size for name in names)))
