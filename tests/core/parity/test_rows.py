"""One comparison of a parity check."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from multiseg.files import json_text
from multiseg.parity.detail import SHARES
from multiseg.parity.result import Parity
from multiseg.parity.rows import ParityRow, figures, sentence
from multiseg.reference import Bounded


def test_a_row_describes_the_distribution_and_the_worst_element() -> None:
    draw = np.random.default_rng(1)
    exact = draw.normal(size=(2, 3, 100, 90))
    bound = draw.uniform(1e-3, 2e-3, exact.shape)
    measured = exact + bound * draw.uniform(-0.5, 0.5, exact.shape)
    measured[1, 2, 97, 3] = exact[1, 2, 97, 3] + 4 * bound[1, 2, 97, 3]
    row = ParityRow.of("side", "forward", "name", Bounded(exact, bound), measured)
    differences = np.sort(np.abs(measured - exact).ravel())
    assert row.verdict == "different" and row.worst == (1, 2, 97, 3)
    assert (row.expected, row.measured) == (exact[row.worst], measured[row.worst])
    assert row.mean == pytest.approx(differences.mean())
    assert row.median == pytest.approx((differences[26999] + differences[27000]) / 2)
    assert differences[53458] <= row.percentile_99 <= differences[53461]
    shares = np.abs(measured - exact) / bound
    assert row.histogram == tuple(
        int(((shares > low) & (shares <= high)).sum()) for low, high in pairwise([-1, *SHARES, np.inf])
    )
    planes = row.planes
    assert planes is not None and planes.shape == (100, 90) and planes.corner == (36, 0) and planes.worst == (61, 3)
    assert planes.measured[planes.worst] == np.float32(measured[row.worst])
    assert np.array_equal(planes.expected, exact[1, 2, 36:, :64].astype(np.float32))
    assert "planes" not in row.to_dict()
    step = ParityRow.of("side", "step", "name", Bounded(exact, bound), exact, 1)
    assert (step.verdict, step.median, step.histogram, step.planes) == ("equal", None, (), None)


def test_nan_and_infinity_are_a_verdict_of_their_own() -> None:
    exact, measured = np.array([[1.0, np.nan, 3.0, 4.0]]), np.array([[1.0, np.nan, np.inf, np.nan]])
    row = ParityRow.of("side", "forward", "name", Bounded(exact, np.full(exact.shape, 0.1)), measured)
    assert (row.verdict, row.not_finite, row.worst, row.expected) == ("not finite", 2, (0, 2), 3.0)
    assert "is not finite: NaN in 1 and infinite in 1 of 4 elements, first at [0, 2]" in sentence(row)
    assert figures(row) == "not finite"
    plain = json.loads(json_text(Parity("net", ["side"], {}, [row]).to_dict()))["rows"][0]
    assert (plain["share"], plain["measured"], plain["verdict"]) == (None, None, "not finite")
    other = ParityRow.of("side", "forward", "name", Bounded(exact), np.zeros(3))
    assert other.verdict == "incomparable"
