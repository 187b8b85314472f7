"""Rules for elementwise layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg.reference.bounded import (
    EXP,
    LOG,
    POW,
    QUOTIENT,
    ROOT,
    STEPS,
    TANH,
    Array,
    Bounded,
    U,
    channelwise,
    gamma,
    reduced,
    result_error,
    total,
)
from multiseg.reference.rule import Gradients, LayerCall, Pull
from multiseg.topology.vocabulary import sum_factors

Parameters = Mapping[str, Any]
Map = Callable[[Array, Parameters], Array]


@dataclass(frozen=True)
class Function:
    """A function ``f`` with its derivative ``slope``.

    ``ulps`` is the error of float32's f in multiples of U; ``steepness`` is the second derivative. At ``kinks`` the derivative
    jumps by at most ``jump``: for a value within its bound of a kink, either side is admissible. For a ``shared`` kink
    frameworks also differ in the derivative exactly at the kink.
    """

    f: Map
    slope: Map
    ulps: float = 0
    steepness: Map | float = 0.0
    kinks: Callable[[Parameters], tuple[float, ...]] = lambda p: ()
    jump: float = 1.0
    shared: bool = False
    leap: Callable[[Parameters], float] = lambda p: 0.0  # by which f itself jumps at a kink
    offset: Map | float = (
        0.0  # added to the size of the result for the relative error of f: size of intermediate values
    )
    slope_offset: Map | float = 0.0  # the same for the slope
    steps: int = 1  # operations that frameworks may compute f with, each of which rounds its result


def _sigmoid(x: Array) -> Array:
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def _elu(x: Array, p: Parameters) -> Array:
    return np.where(x > 0, x, p["alpha"] * np.expm1(np.minimum(x, 0)))


def _swish_slope(x: Array, p: Parameters) -> Array:
    gate = _sigmoid(p["alpha"] * x)
    slope: Array = gate + p["alpha"] * x * gate * (1 - gate)
    return slope


def _limits(p: Parameters) -> tuple[float, ...]:
    return tuple(limit for limit in (p.get("min"), p.get("max")) if limit is not None)


def _clip(x: Array, p: Parameters) -> Array:
    low, high = p.get("min"), p.get("max")
    return x if low is None and high is None else np.clip(x, low, high)


def _at_zero(p: Parameters) -> tuple[float, ...]:
    return (0.0,)


def _exponent(p: Parameters) -> float:
    return float(p["exponent"])


FUNCTIONS: dict[str, Function] = {
    "Identity": Function(lambda x, p: x, lambda x, p: np.ones_like(x)),
    "Neg": Function(lambda x, p: -x, lambda x, p: -np.ones_like(x)),
    "Relu": Function(lambda x, p: np.maximum(x, 0), lambda x, p: (x > 0) * 1.0, kinks=_at_zero),
    "LeakyRelu": Function(
        lambda x, p: np.where(x > 0, x, p["alpha"] * x),
        lambda x, p: np.where(x > 0, 1.0, p["alpha"]),
        ulps=2, kinks=_at_zero,
    ),
    "ThresholdedRelu": Function(
        lambda x, p: np.where(x > p["alpha"], x, p.get("value", 0.0)),
        lambda x, p: (x > p["alpha"]) * 1.0,
        kinks=lambda p: (p["alpha"],), leap=lambda p: abs(p["alpha"] - p.get("value", 0.0)),
    ),
    "Clip": Function(
        _clip, lambda x, p: ((_clip(x, p) == x) & ~np.isin(x, _limits(p))) * 1.0, kinks=_limits, shared=True
    ),
    "Abs": Function(lambda x, p: np.abs(x), lambda x, p: np.sign(x), kinks=_at_zero, jump=2.0),
    "Elu": Function(
        _elu, lambda x, p: np.where(x > 0, 1.0, p["alpha"] * np.exp(np.minimum(x, 0))),
        # some frameworks compute exp(x) - 1, whose rounding error is relative to 1
        ulps=EXP + 2, steepness=1.0, kinks=_at_zero, offset=1.0, slope_offset=1.0,
    ),
    "Sigmoid": Function(
        lambda x, p: _sigmoid(x), lambda x, p: _sigmoid(x) * (1 - _sigmoid(x)), EXP + QUOTIENT + 2, 0.1,
        offset=1.0, slope_offset=1.0,
    ),
    "Swish": Function(
        lambda x, p: x * _sigmoid(p["alpha"] * x), _swish_slope, EXP + QUOTIENT + 4, lambda x, p: abs(p["alpha"]) / 2,
        # Caffe computes the sigmoid from a tanh, with a rounding error relative to 1 even if the sigmoid is small
        offset=lambda x, p: np.abs(x), slope_offset=lambda x, p: 1 + np.abs(p["alpha"] * x),
        steps=3,
    ),
    "Tanh": Function(
        lambda x, p: np.tanh(x), lambda x, p: 1 - np.tanh(x) ** 2, TANH + 2, 0.77, offset=1.0, slope_offset=1.0
    ),
    "Softplus": Function(
        lambda x, p: np.logaddexp(0, x), lambda x, p: _sigmoid(x), EXP + LOG + 2, 0.25, offset=1.0, slope_offset=1.0
    ),
    "Exp": Function(lambda x, p: np.exp(x), lambda x, p: np.exp(x), EXP, lambda x, p: np.exp(x)),
    "Log": Function(lambda x, p: np.log(x), lambda x, p: 1 / x, LOG, lambda x, p: x**-2.0),
    "Sqrt": Function(lambda x, p: np.sqrt(x), lambda x, p: 0.5 / np.sqrt(x), ROOT, lambda x, p: 0.25 * x**-1.5),
    "Pow": Function(
        lambda x, p: x ** _exponent(p), lambda x, p: _exponent(p) * x ** (_exponent(p) - 1), POW,
        lambda x, p: np.abs(_exponent(p) * (_exponent(p) - 1) * x ** (_exponent(p) - 2)),
        steps=2,  # a third power as two products
    ),
}  # fmt: skip


def unary(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute a function of one variable, from FUNCTIONS."""
    (x,), p, function = call.inputs, call.parameters, FUNCTIONS[call.layer.type]
    value, slope = function.f(x.value, p), function.slope(x.value, p)
    size = np.abs(value) + _at(function.offset, x.value, p)
    steepness = _at(function.steepness, x.value, p)
    slope_size = np.abs(slope) + _at(function.slope_offset, x.value, p)
    off_x = np.broadcast_to(x.bound, value.shape)
    change = np.minimum(_over(off_x, steepness), 1e30)  # of the slope within the bound
    at_kink = np.zeros(x.value.shape, bool)
    for kink in function.kinks(p):
        distance = np.abs(x.value - kink)
        at_kink |= (distance <= x.bound) & ((distance > 0) | function.shared | (not x.exact))
    jump = np.where(at_kink, function.jump, 0.0)
    bound = _over(off_x, np.abs(slope) + change + jump) + function.ulps * U * size + _result(function, value, size)
    bound = bound + np.where(at_kink, function.leap(p), 0.0)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        off = _over(np.broadcast_to(g.bound, value.shape), np.abs(slope) + change + jump) + g.size * (change + jump)
        off = off + ((function.ulps + 2) * U + result_error(STEPS)) * g.size * slope_size
        return [Bounded(g.value * slope, off if function.ulps or not g.exact or at_kink.any() else 0.0)], {}

    exact = x.exact and not function.ulps
    return [Bounded(value, 0.0 if exact else bound)], pull


def _result(function: Function, value: Array, size: Array) -> Array | float:
    """Return the error of rounding the results of operations to fewer bits than float32."""
    if not function.ulps:
        return 0.0
    return result_error(function.steps) * (size if function.steps > 1 else np.abs(value))


def _at(quantity: Map | float, x: Array, p: Parameters) -> Array | float:
    return quantity(x, p) if callable(quantity) else quantity


def _over(bound: Array, steep: Array | float) -> Array:
    """Return a bound times a slope, which may be infinite for a bound of 0."""
    return np.where(bound > 0, bound * steep, 0.0)


def prelu(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute PRelu: a slope below zero for each channel, or one for all."""
    (x,), slope = call.inputs, call.weights["weight"].astype(np.float64)
    factor = channelwise(slope, x.value) if len(slope) > 1 else slope.reshape((1,) * x.value.ndim)
    below = np.minimum(x.value, 0)
    value = np.where(x.value > 0, x.value, factor * x.value)
    steep = np.maximum(1.0, np.abs(factor))
    y = Bounded(value, x.bound * steep + gamma(1, 2) * np.abs(value))  # the slope may be rounded, too

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        tilt = np.where(x.value > 0, 1.0, factor)
        kink = (np.abs(x.value) <= x.bound) & (not x.exact)
        off = g.bound * steep + gamma(1, 2) * np.abs(g.value * tilt) + np.where(kink, g.size * (1 + steep), 0)
        back = Bounded(g.value * tilt, off)
        part = Bounded(g.value * below, g.bound * np.abs(below) + g.size * x.bound)
        axes = (0, *range(2, x.value.ndim)) if len(slope) > 1 else tuple(range(x.value.ndim))
        return [back], {"weight": reduced(part, axes).mapped(lambda v: v.reshape(-1))}

    return [y], pull


def constant(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Add, Sub, Mul or Div with a constant."""
    (x,), value, kind = call.inputs, np.asarray(call.parameters["value"], np.float64), call.layer.type
    if value.ndim == 1:
        value = channelwise(value, x.value)
    if kind in ("Add", "Sub"):
        y = x.value + (value if kind == "Add" else -value)
        return [Bounded(y, x.bound + gamma(1) * (np.abs(y) + np.abs(value)))], lambda gradients: (gradients, {})
    if kind == "Div":
        value = np.asarray(1 / value)

    def times(v: Bounded) -> Bounded:
        return Bounded(v.value * value, v.rounded(2) * np.abs(value))

    return [times(x)], lambda gradients: ([times(gradients[0])], {})


def weighted_sum(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Sum, Add and Sub of several inputs, each with its factor."""
    weights = [float(np.float32(factor)) for factor in sum_factors(call.layer, len(call.inputs))]

    def times(v: Bounded, factor: float) -> Bounded:
        if abs(factor) == 1:
            return v.mapped(lambda each: each) if factor == 1 else Bounded(-v.value, v.bound, v.terms)
        return Bounded(v.value * factor, v.rounded(1) * abs(factor))

    y = total([times(x, factor) for x, factor in zip(call.inputs, weights, strict=True)])
    return [y], lambda gradients: ([times(gradients[0], factor) for factor in weights], {})


def product(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute the product of several inputs."""

    def times(one: Bounded, other: Bounded) -> Bounded:
        bound = one.bound * other.size + one.size * other.bound + one.bound * other.bound
        value = one.value * other.value
        return Bounded(value, bound + gamma(1) * np.abs(value))

    y = call.inputs[0]
    for x in call.inputs[1:]:
        y = times(y, x)

    def pull(gradients: list[Bounded]) -> Gradients:
        found = []
        for i in range(len(call.inputs)):
            g = gradients[0]
            for j, x in enumerate(call.inputs):
                g = times(g, x) if j != i else g
            if call.inputs[i].value.shape != g.value.shape:  # one value for each channel
                g = reduced(g, tuple(range(2, g.value.ndim))).mapped(lambda v: v.reshape(*v.shape[:2], 1, 1))
            found.append(g)
        return found, {}

    return [y], pull


def quotient(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute the first input divided by the second."""
    one, other = call.inputs
    value = one.value / other.value
    low = np.maximum(other.size - other.bound, np.finfo(float).tiny)
    y = Bounded(
        value, (one.bound + np.abs(value) * other.bound) / low + (QUOTIENT * U + result_error()) * np.abs(value)
    )

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        back = g.value / other.value
        first = Bounded(
            back, (g.bound + np.abs(back) * other.bound) / low + (QUOTIENT * U + result_error(2)) * np.abs(back)
        )
        second = -back * value
        off = first.bound * np.abs(value) + np.abs(back) * y.bound + gamma(3) * np.abs(second)
        return [first, Bounded(second, off)], {}

    return [y], pull
