"""The solvers of the recipe ``equal`` in float64, with bounds. The formulas are in docs/solvers.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from multiseg.reference.bounded import ROOT, Array, Bounded, U, for_pieces, gamma

FEW = 6 + 2 * ROOT  # number of roundings of an update
PAIRED = ("adadelta", "adam")  # with two state arrays per parameter; the others have one


class Solver:
    """Predicts training steps of a framework from its own weights before the step and the reference's gradients there.

    The state (momentum etc.) is accumulated from these gradients, with bounds.
    """

    def __init__(self, name: str, options: Mapping[str, float]) -> None:
        self.name, self.options = name, options
        self.state: dict[str, list[Bounded]] = {}
        self.steps = 0
        self.last_rate = 0.0

    def copy(self) -> Solver:
        """Return a copy of the solver with its current state."""
        other = Solver(self.name, self.options)
        other.state = {name: list(state) for name, state in self.state.items()}
        other.steps, other.last_rate = self.steps, self.last_rate
        return other

    def step(self, weights: Mapping[str, Array], gradients: Mapping[str, Bounded], rate: float) -> dict[str, Bounded]:
        """Return the weights after one update at learning rate ``rate``, and update the state."""
        self.steps += 1
        self.last_rate = rate
        return {name: self._moved(name, before, gradients[name], rate) for name, before in weights.items()}

    def _moved(self, name: str, before: Array, gradient: Bounded, rate: float) -> Bounded:
        """Return one parameter after the update, computed in pieces, and update its state."""
        shape, decay = before.shape, self.options.get("weight_decay", 0.0)
        count = 2 if self.name in PAIRED else 1
        state = self.state.get(name) or [Bounded(np.zeros(shape), np.zeros(shape)) for _ in range(count)]
        after, *new_state = [Bounded(np.empty(shape), np.empty(shape)) for _ in range(1 + count)]

        def move(part: slice) -> None:
            old, g = before.ravel()[part].astype(np.float64), _part(gradient, part)
            if decay:
                decayed = decay * old
                g = Bounded(g.value + decayed, g.bound + gamma(2) * (g.size + np.abs(decayed)))
            state_part = [_part(each, part) for each in state]
            change = UPDATES[self.name](state_part, g, rate, self.options, self.steps)
            value = old - change.value
            new_weights = Bounded(value, change.bound + U * (np.abs(value) + change.bound))
            for whole, piece in zip((after, *new_state), (new_weights, *state_part), strict=True):
                whole.value.ravel()[part], np.asarray(whole.bound).ravel()[part] = piece.value, piece.bound

        for_pieces(before.size, move)
        self.state[name] = new_state
        return after


def _part(whole: Bounded, part: slice) -> Bounded:
    return Bounded(whole.value.ravel()[part], whole.bound if whole.exact else np.asarray(whole.bound).ravel()[part])


Update = Callable[["list[Bounded]", Bounded, float, Mapping[str, float], int], Bounded]


def _mixed(a: float, x: Bounded, b: float, y: Bounded) -> Bounded:
    """Return a x + b y. For b = 1 - a, float32's b may have an absolute error of U."""
    value = a * x.value + b * y.value
    size = abs(a) * x.size + (abs(b) + U / gamma(4)) * y.size
    return Bounded(value, abs(a) * x.bound + abs(b) * y.bound + gamma(4) * size)


def _square(x: Bounded) -> Bounded:
    return Bounded(x.value**2, 2 * x.size * x.bound + np.square(x.bound) + gamma(1) * x.value**2)


def _scaled(x: Bounded, factor: float) -> Bounded:
    return Bounded(factor * x.value, abs(factor) * x.rounded(2))


def _over_root(x: Bounded, s: Bounded, delta: float, most: float) -> Bounded:
    """Return x / (sqrt(s) + delta), whose absolute value is at most ``most``."""
    value = x.value / (np.sqrt(s.value) + delta)
    low = np.sqrt(np.maximum(s.value - s.bound, 0)) + delta
    high = np.sqrt(s.value + s.bound) + delta
    above = (x.size + x.bound) / low - np.abs(value)
    under = np.abs(value) - np.where(x.size > x.bound, (x.size - x.bound) / high, -(x.bound - x.size) / low)
    bound = np.minimum(np.maximum(above, under), most + np.abs(value))
    return Bounded(value, bound + gamma(FEW) * np.abs(value))


def _momentum(state: list[Bounded], g: Bounded, rate: float, options: Mapping[str, float], steps: int) -> Bounded:
    state[0] = _mixed(options["momentum"], state[0], 1, g)
    return _scaled(state[0], rate)


def _nesterov(state: list[Bounded], g: Bounded, rate: float, options: Mapping[str, float], steps: int) -> Bounded:
    before = state[0]
    state[0] = _mixed(options["momentum"], state[0], 1, g)
    change = _mixed(1, g, options["momentum"], state[0])
    # some frameworks compute it as (1 + momentum) v' - momentum v, whose parts are larger
    size = (1 + options["momentum"]) * state[0].size + options["momentum"] * before.size
    return _scaled(Bounded(change.value, change.bound + gamma(4) * size), rate)


def _adagrad(state: list[Bounded], g: Bounded, rate: float, options: Mapping[str, float], steps: int) -> Bounded:
    state[0] = _mixed(1, state[0], 1, _square(g))
    return _scaled(_over_root(g, state[0], options["delta"], 1), rate)


def _rmsprop(state: list[Bounded], g: Bounded, rate: float, options: Mapping[str, float], steps: int) -> Bounded:
    decay = options["rms_decay"]
    state[0] = _mixed(decay, state[0], 1 - decay, _square(g))
    return _scaled(_over_root(g, state[0], options["delta"], 1 / math.sqrt(1 - decay)), rate)


def _adadelta(state: list[Bounded], g: Bounded, rate: float, options: Mapping[str, float], steps: int) -> Bounded:
    decay, delta = options["momentum"], options["delta"]
    state[0] = _mixed(decay, state[0], 1 - decay, _square(g))
    shifted = Bounded(state[0].value + delta, state[0].bound + gamma(1) * (state[0].value + delta))
    top = np.sqrt(state[1].value + delta)
    off_top = np.sqrt(state[1].value + state[1].bound + delta) - np.sqrt(
        np.maximum(state[1].value - state[1].bound, 0) + delta
    )
    change = Bounded(g.value * top, g.bound * (top + off_top) + g.size * off_top + gamma(FEW) * g.size * top)
    change = _over_root(change, shifted, 0.0, math.inf)
    state[1] = _mixed(decay, state[1], 1 - decay, _square(change))
    return _scaled(change, rate)


def _adam(state: list[Bounded], g: Bounded, rate: float, options: Mapping[str, float], steps: int) -> Bounded:
    one, two = options["momentum"], options["momentum2"]
    state[0] = _mixed(one, state[0], 1 - one, g)
    state[1] = _mixed(two, state[1], 1 - two, _square(g))
    correction = math.sqrt(1 - two**steps) / (1 - one**steps)
    # |m| <= sum (1 - a) a^k |g|, sqrt(v) >= sqrt((1 - b) b^k) |g| for each of them
    most = (1 - one) / math.sqrt(1 - two) / (1 - one / math.sqrt(two)) if one**2 < two else math.inf
    # float32's 1 - b has a relative error of u / (1 - b), and so has the bias correction
    off = U / (1 - two) + U / (1 - one)
    change = _over_root(state[0], state[1], options["delta"], most)
    return _scaled(Bounded(change.value, change.bound + 2 * off * change.size), rate * correction)


UPDATES: dict[str, Update] = {
    "sgd": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adadelta": _adadelta,
    "adam": _adam,
}
