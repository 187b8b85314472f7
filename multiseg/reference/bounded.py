"""Numbers with a bound of the rounding error of the same computation in float32, bfloat16 or TF32."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

U = 2.0**-24  # float32's unit roundoff
LAMBDA = 10.0  # of the probabilistic bound: it fails for one in 10^21 roundings of a sum
PIECE = 1 << 16  # elements of a large array that are processed at once, so that they stay in the processor's cache
FEW_PIECES = 4  # per thread; with fewer it is not worth its start
TINY = 2.0**-126  # the smallest normal float32: results below it may be flushed to 0

# Relative errors of functions in multiples of U: twice the units in the last place that OpenCL allows single precision (OpenCL C
# 3.0 specification, section "Relative Error as ULPs": exp 3, log 3, tanh 5, pow 16, sqrt 3, x / y 2.5), as a unit is up to 2 U of
# a number. Frameworks' own vectorised functions keep to the same order.
EXP, LOG, TANH, POW, ROOT, QUOTIENT = 6, 6, 10, 32, 6, 5


@dataclass(frozen=True)
class Precision:
    """The numbers in which a framework computes: unit roundoffs, the largest relative errors of rounding one number.

    ``operands`` is that of the factors of products in convolutions and dense layers, ``sums`` that of their sums, and ``results``
    that of what an operation returns; 0 where it is not rounded further than to float32.
    """

    name: str
    operands: float = 0.0
    results: float = 0.0
    sums: float = U


FLOAT32 = Precision("float32")
# Of p bits a number rounded to nearest has the unit roundoff 2^-p (Higham, as below, section 2.1); bfloat16 has 8. What an
# operation of torch.autocast takes and returns is bfloat16, its sums are float32.
BF16 = Precision("bf16", operands=2.0**-8, results=2.0**-8)
# TF32 has 11 bits. The factors may be truncated instead of rounded, as PTX's mma ignores the lower 13 bits of float32, and tensor
# cores truncate when they align the terms of a sum (Fasi, Higham, Mikaitis and Pranesh, Numerical behavior of NVIDIA tensor
# cores, PeerJ Comput. Sci. 7:e330, 2021): twice the unit roundoffs of rounding to nearest.
TF32 = Precision("tf32", operands=2.0**-10, sums=2 * U)
PRECISIONS = {each.name: each for each in (FLOAT32, BF16, TF32)}
STEPS = 6  # operations that frameworks compute a layer without long sums with, at most, each of which rounds its result

_precision: ContextVar[Precision] = ContextVar("precision", default=FLOAT32)


@contextmanager
def computed_in(precision: Precision) -> Iterator[None]:
    """Let bounds within the context be those of computing in ``precision``; in one thread."""
    token = _precision.set(precision)
    try:
        yield
    finally:
        _precision.reset(token)


def gamma(terms: float, steps: float | None = None) -> float:
    """Return a bound of the relative error of a sum of n terms, in any order: |error| <= gamma(n) * sum |a_i|.

    In float32 that of :func:`_summed`. In a precision that rounds the results of operations, this happens ``steps`` times: by
    default once for each term, up to STEPS times, because longer sums are one operation, which sums in float32.
    """
    precision = _precision.get()
    if not precision.results:
        return _summed(terms, precision.sums)
    count = min(max(terms, 1), STEPS) if steps is None else steps
    return _rounded(_summed(terms, precision.sums), (precision.results, count))


def product_gamma(terms: float, steps: float = 1) -> float:
    """Return the bound as :func:`gamma` does of a sum of n products of weights and inputs: |error| <= bound * sum |a_i b_i|.

    Both factors may be rounded first, and the result ``steps`` times: more than once if a framework adds up partial sums that are
    rounded.
    """
    precision = _precision.get()
    return _rounded(_summed(terms, precision.sums), (precision.operands, 2), (precision.results, steps))


def result_error(steps: float = 1) -> float:
    """Return a bound of the relative error of rounding results of operations ``steps`` times; 0 in float32, whose functions have
    errors of their own."""
    return _rounded(0.0, (_precision.get().results, steps))


def _rounded(error: float, *roundings: tuple[float, float]) -> float:
    """Return the relative error after numbers with the relative ``error`` are rounded: a unit roundoff and how often, each."""
    if not any(unit for unit, _ in roundings):
        return error
    return math.expm1(math.log1p(error) + sum(count * math.log1p(unit) for unit, count in roundings))


def _summed(terms: float, unit: float) -> float:
    """Return a bound of the relative error of a sum of n products in any order, with the unit roundoff ``unit``.

    The smaller of the worst case n u / (1 - n u) (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1) and
    the probabilistic exp((lambda sqrt(n) u + n u^2) / (1 - u)) - 1 (Higham and Mary, A New Approach to Probabilistic Rounding
    Error Analysis, SIAM J. Sci. Comput. 41(5), 2019, theorem 2.4), which fails for one in exp(lambda^2 / 2) / 2n sums at most.
    """
    likely = math.expm1((LAMBDA * math.sqrt(terms) * unit + terms * unit * unit) / (1 - unit))
    return min(terms * unit / (1 - terms * unit), likely) if terms * unit < 0.5 else likely


@dataclass(frozen=True, eq=False)
class Bounded:
    """``value`` (float64), and ``bound`` of the distance of float32's value, of the same shape; 0.0 for an exact value.

    ``terms``: number of terms of the sums that produced it, for messages.
    """

    value: Array
    bound: Array | float = 0.0
    terms: int = 0

    @property
    def exact(self) -> bool:
        """Whether the value has no rounding error."""
        return isinstance(self.bound, float)

    @cached_property
    def size(self) -> Array:
        """The absolute value."""
        return np.abs(self.value)

    def mapped(self, move: Callable[[Array], Array]) -> Bounded:
        """Return value and bound after ``move``, which may only rearrange or omit elements."""
        return Bounded(move(self.value), self.bound if self.exact else move(np.asarray(self.bound)), self.terms)

    def nearest(self, measured: Array) -> tuple[float, float, float]:
        """Return the largest ratio of a difference of ``measured`` (float32) to its bound; the difference and the bound there.

        The ratio is infinite for another shape, and where ``measured`` is not finite. Elements without a finite value or bound in
        float32's range are not compared.
        """
        if measured.shape != self.value.shape:
            return math.inf, math.inf, 0.0
        bound = np.broadcast_to(self.bound, measured.shape) + TINY
        comparable = np.isfinite(bound) & (self.size < np.finfo(np.float32).max)
        difference = np.abs(measured - self.value)[comparable]
        if not difference.size:
            return 0.0, 0.0, 0.0
        difference = np.where(np.isfinite(difference), difference, np.inf)
        shares = difference / bound[comparable]
        place = int(shares.argmax())
        return float(shares[place]), float(difference[place]), float(bound[comparable][place])

    def as_result(self) -> Bounded:
        """Return the value with the error of rounding it as the result of an operation; itself in float32."""
        error = result_error()
        return Bounded(self.value, self.bound + error * self.size, self.terms) if error else self

    def rounded(self, terms: float) -> Array:
        """Return the bound plus the error of ``terms`` roundings of the value."""
        return self.bound + gamma(terms) * self.size


def pieces(count: int) -> Iterator[slice]:
    """Return slices that divide ``count`` elements into pieces of PIECE."""
    return (slice(at, at + PIECE) for at in range(0, count, PIECE))


def for_pieces(count: int, work: Callable[[slice], None]) -> None:
    """Call ``work`` for each of the :func:`pieces`, of large arrays in as many threads as the process has cores."""
    threads = min(len(os.sched_getaffinity(0)), count // (FEW_PIECES * PIECE))
    if threads < 2:
        for part in pieces(count):
            work(part)
        return
    handling = np.geterr()  # which threads do not inherit

    def handled(part: slice) -> None:
        with np.errstate(**handling):
            work(part)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(handled, pieces(count)))


def exact(array: Array) -> Bounded:
    """Return an array as exact value."""
    return Bounded(np.asarray(array, dtype=np.float64))


def total(values: list[Bounded]) -> Bounded:
    """Return the sum of values of one shape."""
    if len(values) == 1:
        return values[0]
    value = np.sum([each.value for each in values], axis=0)
    size = np.sum([each.size for each in values], axis=0)
    bound = np.sum([np.broadcast_to(each.bound, value.shape) for each in values], axis=0)
    return Bounded(value, bound + gamma(len(values) - 1, len(values) - 1) * size, max(each.terms for each in values))


def reduced(x: Bounded, axes: tuple[int, ...], keepdims: bool = False, factor: float = 1.0) -> Bounded:
    """Return ``factor`` times the sum along axes; a factor other than 1 is taken as rounded."""
    terms = math.prod(x.value.shape[axis] for axis in axes)
    value = x.value.sum(axes, keepdims=keepdims) * factor
    bound = np.asarray(x.rounded(terms + (factor != 1) * 2)).sum(axes, keepdims=keepdims) * abs(factor)
    return Bounded(value, bound, terms)


def channelwise(vector: Array, like: Array) -> Array:
    """Return a vector with one element per channel, reshaped to broadcast with (N, C, ...)."""
    return vector.reshape(1, -1, *(1,) * (like.ndim - 2))
