"""Bounds of bfloat16 and TF32 contain computations in NumPy with numbers of 8 and 11 bits, and are not much wider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers.networks import layer, topology
from multiseg import reference
from multiseg.reference.bounded import BF16, FLOAT32, TF32, Precision, computed_in, gamma, product_gamma

Array = np.ndarray[Any, Any]
INPUTS, OUTPUTS = 300, 40
NETWORK = topology([layer("dense", "Gemm", "data", num_output=OUTPUTS)], shape=(INPUTS,))


def nearest(bits: int) -> Callable[[Array], Array]:
    """Rounding of float32 to ``bits`` significant bits, to nearest, ties to even."""
    dropped = 24 - bits

    def rounded(values: Array) -> Array:
        raw = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
        raw += (1 << (dropped - 1)) - 1 + ((raw >> dropped) & 1)
        return (raw >> dropped << dropped).astype(np.uint32).view(np.float32)

    return rounded


def truncated(bits: int) -> Callable[[Array], Array]:
    """Truncation of float32 to ``bits`` significant bits."""

    def rounded(values: Array) -> Array:
        return (np.asarray(values, np.float32).view(np.uint32) >> (24 - bits) << (24 - bits)).view(np.float32)

    return rounded


def test_the_roundings_of_this_file_are_those_of_their_formats() -> None:
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -(1 + 2**-8)], np.float32)
    assert nearest(8)(ties).tolist() == [1, 1 + 2**-6, 1 + 2**-7, -1]
    assert truncated(8)(ties).tolist() == [1, 1 + 2**-7, 1, -1]
    values = np.random.default_rng(1).normal(size=10000).astype(np.float32)
    for bits in (8, 11):
        errors = np.abs(nearest(bits)(values).astype(np.float64) - values) / np.abs(values)
        assert 0.9 * 2**-bits < errors.max() <= 2**-bits
        errors = np.abs(truncated(bits)(values).astype(np.float64) - values) / np.abs(values)
        assert 1.8 * 2**-bits < errors.max() <= 2 * 2**-bits


def keep(values: Array) -> Array:
    return values


@pytest.mark.parametrize(
    ("precision", "operands", "results"),
    [
        (BF16, nearest(8), nearest(8)),
        (TF32, nearest(11), keep),
        (TF32, truncated(11), keep),
    ],
    ids=["bf16", "tf32", "tf32-truncated"],
)
def test_a_dense_layer_lies_within_its_bounds_and_not_within_those_of_float32(
    precision: Precision, operands: Callable[[Array], Array], results: Callable[[Array], Array]
) -> None:
    draw = np.random.default_rng(2)
    images = draw.normal(size=(50, INPUTS)).astype(np.float32)
    weights = {
        "dense.weight": draw.normal(size=(OUTPUTS, INPUTS)).astype(np.float32),
        "dense.bias": draw.normal(size=OUTPUTS).astype(np.float32),
    }
    x, w, bias = operands(images), operands(weights["dense.weight"]), weights["dense.bias"]
    total = np.zeros((len(images), OUTPUTS), np.float32)
    for term in range(INPUTS):  # float32 in sequence, one rounding for each product and each sum
        total = total + x[:, term, None] * w[None, :, term]
    measured = results(total + bias)
    with computed_in(precision):
        expected = reference.forward(NETWORK, weights, images).output
    share, *_ = expected.nearest(measured)
    assert 0.02 < share < 1
    single = reference.forward(NETWORK, weights, images).output  # after the context: float32's bounds
    assert single.nearest(measured)[0] > 5
    plain = images @ weights["dense.weight"].T + bias
    assert expected.nearest(plain)[0] < 0.05
    assert single.nearest(plain)[0] < 1
    # an error of ten bounds in one element is found
    wrong = measured.copy()
    wrong[3, 5] += 10 * np.asarray(expected.bound)[3, 5]
    assert 9 < expected.nearest(wrong)[0] < 11


def test_the_bounds_are_the_products_of_their_roundings() -> None:
    """(1 + 2^-8)^3 - 1 for one product of two rounded factors whose result is rounded, besides float32's own."""
    assert gamma(1) == pytest.approx(2**-24, rel=1e-6)
    assert product_gamma(1) == gamma(1)
    with computed_in(BF16):
        assert product_gamma(1) == pytest.approx((1 + 2**-8) ** 3 - 1, rel=1e-5)
        assert gamma(4) == pytest.approx((1 + 2**-8) ** 4 - 1, rel=1e-4)
        with computed_in(FLOAT32):
            assert gamma(1) == pytest.approx(2**-24, rel=1e-6)
    with computed_in(TF32):
        assert product_gamma(1) == pytest.approx((1 + 2**-10) ** 2 - 1, rel=1e-3)
        assert gamma(1) == pytest.approx(2**-23, rel=1e-6)
    assert gamma(1) == pytest.approx(2**-24, rel=1e-6)
