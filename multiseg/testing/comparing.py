"""Assertions about named arrays. Their messages state which array differs, where, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.errors import MultisegError

Array = npt.NDArray[Any]


def same_bits(found: Mapping[str, Array], expected: Mapping[str, Array], what: str) -> None:
    """Assert that two sets of arrays are identical bit by bit; ``what`` describes them."""
    __tracebackhide__ = True
    assert list(found) == list(expected), f"{what}: names are {list(found)}, not {list(expected)}"
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, (
            f"{what}: {name!r} is {found[name].dtype} {found[name].shape}, not {value.dtype} {value.shape}"
        )
        if found[name].tobytes() != value.tobytes():
            differing = int((found[name] != value).sum())
            largest = float(np.abs(found[name].astype(np.float64) - value).max(initial=0))
            raise AssertionError(
                f"{what}: {differing} of {value.size} numbers of {name!r} differ, by {largest:.3g} at most"
            )


def close(found: Array, expected: Array, tolerance: Array | float, what: str) -> None:
    """Assert that every number is within its tolerance of the expected one; ``what`` describes the numbers and a fix."""
    __tracebackhide__ = True
    assert found.shape == expected.shape, f"{what}: has the shape {found.shape}, not {expected.shape}"
    excess = np.abs(found.astype(np.float64) - expected) - tolerance
    if found.size and not excess.max() <= 0:
        at = np.unravel_index(int(np.argmax(np.where(np.isnan(excess), np.inf, excess))), found.shape)
        allowed = float(np.broadcast_to(tolerance, found.shape)[at])
        raise AssertionError(
            f"{what}: is {float(found[at]):.9g} at {[int(i) for i in at]}, expected is {float(expected[at]):.9g}, within "
            f"{allowed:.2g}; {int((~(excess <= 0)).sum())} of {found.size} numbers are off"
        )


def refused(call: Callable[[], object], kind: type[MultisegError], words: str, what: str) -> None:
    """Assert that a call raises an error of this type whose message contains ``words``; ``what`` states the requirement."""
    __tracebackhide__ = True
    try:
        call()
    except MultisegError as error:
        assert isinstance(error, kind) and words in str(error), f"{what}; it is a {type(error).__name__}: {error}"
    else:
        raise AssertionError(f"{what}; it is accepted")
