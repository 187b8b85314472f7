"""Update rules of solvers in float64 numpy, written out from the frameworks' documentation and sources (docs/solvers.md).

A rule is a function of the weights, the gradient, the rate, the number of the step from 1, a dict of its own to keep state
in, and the solver's options; it gives the new weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from helpers.neutral_math import Array

State = dict[str, Any]
Options = Mapping[str, float]
Rule = Callable[[Array, Array, float, int, State, Options], Array]


def _running(state: State, key: str, decay: float, value: Array) -> Array:
    state[key] = decay * state.get(key, 0.0) + (1 - decay) * value
    return np.asarray(state[key])


# --- the recipe `equal`


def sgd(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    state["v"] = o["momentum"] * state.get("v", 0.0) + g
    return w - rate * state["v"]


def nesterov(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    state["v"] = o["momentum"] * state.get("v", 0.0) + g
    return w - rate * (g + o["momentum"] * state["v"])


def adagrad(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    state["s"] = state.get("s", 0.0) + g**2
    return w - rate * g / (np.sqrt(state["s"]) + o["delta"])


def rmsprop(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    return w - rate * g / (np.sqrt(_running(state, "s", o["rms_decay"], g**2)) + o["delta"])


def adadelta(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    s = _running(state, "s", o["momentum"], g**2)
    step = g * np.sqrt(state.get("d", 0.0) + o["delta"]) / np.sqrt(s + o["delta"])
    _running(state, "d", o["momentum"], step**2)
    return w - rate * step


def adam(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    m, v = _running(state, "m", o["momentum"], g), _running(state, "v", o["momentum2"], g**2)
    return w - rate * np.sqrt(1 - o["momentum2"] ** t) / (1 - o["momentum"] ** t) * m / (np.sqrt(v) + o["delta"])


EQUAL: dict[str, Rule] = {
    "sgd": sgd, "nesterov": nesterov, "adagrad": adagrad, "rmsprop": rmsprop, "adadelta": adadelta, "adam": adam,
}  # fmt: skip

# --- the frameworks' own, where they differ


def caffe_sgd(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    """src/caffe/solvers/sgd_solver.cpp"""
    state["h"] = o["momentum"] * state.get("h", 0.0) + rate * g
    return w - state["h"]


def caffe_nesterov(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    """src/caffe/solvers/nesterov_solver.cpp"""
    before = state.get("h", 0.0)
    state["h"] = o["momentum"] * before + rate * g
    return w - ((1 + o["momentum"]) * state["h"] - o["momentum"] * before)


def torch_sgd(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    """torch.optim.SGD: the first step is not dampened"""
    state["b"] = g if t == 1 else o["momentum"] * state["b"] + (1 - o["dampening"]) * g
    return w - rate * state["b"]


def torch_rmsprop(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    """torch.optim.RMSprop"""
    step = g / (np.sqrt(_running(state, "v", o["rms_decay"], g**2)) + o["delta"])
    state["b"] = o["momentum"] * state.get("b", 0.0) + step
    return w - rate * state["b"]


def torch_adam(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    """torch.optim.Adam, which is algorithm 1 of Kingma and Ba"""
    m, v = _running(state, "m", o["momentum"], g), _running(state, "v", o["momentum2"], g**2)
    return w - rate * m / (1 - o["momentum"] ** t) / (np.sqrt(v / (1 - o["momentum2"] ** t)) + o["delta"])


def torch_nadam(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    """torch.optim.NAdam"""
    mu, after = (o["momentum"] * (1 - 0.5 * 0.96 ** (at * o["momentum_decay"])) for at in (t, t + 1))
    state["product"] = state.get("product", 1.0) * mu
    m, v = _running(state, "m", o["momentum"], g), _running(state, "v", o["momentum2"], g**2)
    mean = after * m / (1 - state["product"] * after) + (1 - mu) * g / (1 - state["product"])
    return w - rate * mean / (np.sqrt(v / (1 - o["momentum2"] ** t)) + o["delta"])


def torch_radam(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    """torch.optim.RAdam"""
    beta = o["momentum2"]
    m, v = _running(state, "m", o["momentum"], g), _running(state, "v", beta, g**2)
    mean = m / (1 - o["momentum"] ** t)
    last = 2 / (1 - beta) - 1
    rho = last - 2 * t * beta**t / (1 - beta**t)
    if rho <= 5:
        return w - rate * mean
    rectified = np.sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho))
    return w - rate * mean * rectified * np.sqrt(1 - beta**t) / (np.sqrt(v) + o["delta"])


def tensorflow_adagrad(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    """tf.compat.v1.train.AdagradOptimizer"""
    state["s"] = state.get("s", o["initial_accumulator"]) + g**2
    return w - rate * g / np.sqrt(state["s"])


def tensorflow_rmsprop(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    """tf.compat.v1.train.RMSPropOptimizer, whose mean square starts at 1"""
    state["s"] = o["rms_decay"] * state.get("s", 1.0) + (1 - o["rms_decay"]) * g**2
    state["b"] = o["momentum"] * state.get("b", 0.0) + rate * g / np.sqrt(state["s"] + o["delta"])
    return w - state["b"]


def tensorflow_ftrl(w: Array, g: Array, rate: float, t: int, state: State, o: Options) -> Array:
    """tf.compat.v1.train.FtrlOptimizer at learning_rate_power -0.5"""
    before = state.get("n", o["initial_accumulator"])
    state["n"] = before + g**2
    state["z"] = state.get("z", 0.0) + g - (np.sqrt(state["n"]) - np.sqrt(before)) / rate * w
    z = state["z"]
    shrunk = np.sign(z) * o["l1"] - z
    return np.where(np.abs(z) > o["l1"], shrunk / (np.sqrt(state["n"]) / rate + 2 * o["l2"]), 0.0)


OWN: dict[str, dict[str, Rule]] = {
    "caffe": {**EQUAL, "sgd": caffe_sgd, "nesterov": caffe_nesterov},
    "torch": {
        **EQUAL, "sgd": torch_sgd, "rmsprop": torch_rmsprop, "adam": torch_adam, "adamw": torch_adam, "nadam": torch_nadam,
        "radam": torch_radam,
    },
    "tensorflow": {**EQUAL, "adagrad": tensorflow_adagrad, "rmsprop": tensorflow_rmsprop, "ftrl": tensorflow_ftrl},
}  # fmt: skip
DECOUPLED = {"adamw"}  # weight decay acts on the weights, not through the gradient
