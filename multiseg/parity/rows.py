"""One comparison of a parity check, and tables of comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg.reference.bounded import TINY, Array, Bounded, pieces

LARGEST = float(np.finfo(np.float32).max)
STAGES = ("network", "weights", "forward", "output", "loss", "gradient", "step")
TITLES = {
    "network": "Networks",
    "weights": "Weights that were given",
    "forward": "Forward, layer by layer",
    "output": "Output, end to end",
    "loss": "Loss",
    "gradient": "Gradients",
    "step": "Weights after each step",
}


@dataclass(frozen=True)
class ParityRow:
    """One comparison with the reference.

    - ``side``: network and backend; ``stage``: one of STAGES; ``name``: of a layer or parameter in the reference;
      ``step``: the number of the training step, from 1, or None.
    - ``absolute``: the largest difference; ``relative``: the same relative to the largest value of the reference.
    - ``share``: the largest ratio of a difference to its tolerance, and ``tolerance`` the tolerance at that element; above 1 is
      more than rounding. A tolerance follows from sums of ``terms`` terms (multiseg.reference.bounded).
    - ``resolution``: the mean tolerance relative to the largest value of the reference; smaller errors may go undetected.
    - ``unjudged``: the number of elements without a finite value or tolerance in the reference; ``words``: the reason for a
      failure, or None.
    """

    side: str
    stage: str
    name: str
    absolute: float = 0.0
    relative: float = 0.0
    tolerance: float = 0.0
    share: float = 0.0
    resolution: float = 0.0
    terms: int = 0
    step: int | None = None
    unjudged: int = 0
    words: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.share <= 1

    @classmethod
    def of(
        cls, side: str, stage: str, name: str, expected: Bounded, measured: Array, step: int | None = None
    ) -> ParityRow:
        """Return the row that compares an array with the reference's value."""
        if measured.shape != expected.value.shape:
            return cls.wrong(side, stage, name, f"has the shape {measured.shape}, not {expected.value.shape}", step)
        if not measured.size:
            return cls(side, stage, name, step=step)
        bounds = np.broadcast_to(expected.bound, measured.shape).ravel()
        largest = size = total = share = tolerance = 0.0
        unjudged = 0
        for part in pieces(measured.size):
            value, allowed = expected.value.ravel()[part], bounds[part] + TINY
            # elements beyond the range of float32, or NaN, in the reference cannot be compared
            comparable = np.isfinite(allowed) & (np.abs(value) < LARGEST)
            if not comparable.all():
                unjudged += int(comparable.size - comparable.sum())
                value, allowed = np.where(comparable, value, 0.0), np.where(comparable, allowed, 1.0)
            difference = np.abs(np.where(comparable, measured.ravel()[part], 0.0) - value)
            if not np.isfinite(difference).all():
                return cls.wrong(side, stage, name, "is not finite", step)
            shares = difference / allowed
            worst = int(shares.argmax())
            if shares[worst] >= share:
                share, tolerance = float(shares[worst]), float(allowed[worst])
            largest, size = max(largest, float(difference.max())), max(size, float(np.abs(value).max()))
            total += float(allowed.sum())
        return cls(
            side,
            stage,
            name,
            absolute=largest,
            relative=largest / max(size, TINY),
            tolerance=tolerance,
            share=share,
            resolution=total / measured.size / max(size, TINY),
            terms=expected.terms,
            step=step,
            unjudged=unjudged,
        )

    @classmethod
    def wrong(cls, side: str, stage: str, name: str, words: str, step: int | None = None) -> ParityRow:
        """Return a row for arrays that cannot be compared number by number; ``words`` give the reason."""
        return cls(side, stage, name, math.inf, math.inf, share=math.inf, step=step, words=words)


def order(row: ParityRow) -> tuple[int, int]:
    return STAGES.index(row.stage), row.step or 0


def rows_by_stage(rows: Iterable[ParityRow]) -> dict[str, dict[str, dict[str, ParityRow]]]:
    """Return rows by stage, name and side, in this order; of training steps those of :func:`worst_steps`."""
    stages: dict[str, dict[str, dict[str, ParityRow]]] = {}
    for row in sorted(worst_steps(rows), key=lambda row: STAGES.index(row.stage)):
        stages.setdefault(row.stage, {}).setdefault(row.name, {})[row.side] = row
    return stages


def figures(row: ParityRow) -> str:
    """Return the largest difference and its share of the tolerance, as in "1.3e-05, 28 %"."""
    if row.stage in ("network", "weights"):
        return ("equal" if row.stage == "weights" else "the same") if row.ok else f"{row.absolute:.1e}"
    return f"{row.absolute:.1e}, {percent(row.share)}" if row.absolute else "0"


def percent(share: float) -> str:
    """Return a share of a tolerance, as in 0.3 %, or 240 times."""
    if share > 1:
        return f"{share:.3g} times" if share < 1e9 else "beyond"
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.0f} %" if share > 0.095 else f"{100 * share:.2g} %"


def worst_steps(rows: Iterable[ParityRow]) -> list[ParityRow]:
    """Return rows without steps and, for each parameter and side, the first step beyond its tolerance, else the nearest to it."""
    worst: dict[tuple[str, str, str], ParityRow] = {}
    for row in rows:
        key = (row.side, row.stage, row.name)
        previous = worst.get(key)
        if previous is None or (previous.ok and row.share > previous.share):
            worst[key] = row
    return list(worst.values())


def sentence(row: ParityRow) -> str:
    """Describe a row that is beyond its tolerance."""
    subject = {
        "forward": f"layer {row.name!r} is the first that differs",
        "output": f"the output {row.name!r} differs",
        "loss": "the loss differs",
        "gradient": f"the gradient of {row.name!r} is the first that differs",
        "step": f"{row.name!r} is the first to differ, after step {row.step}",
        "weights": f"the weights {row.name!r} differ",
        "network": "",
    }[row.stage]
    if row.stage == "network":
        return f"{row.side}: {row.words}"
    if not math.isfinite(row.share):
        return f"{row.side}: {subject}: it {row.words}"
    sums = f"rounding in sums of {row.terms:,} terms" if row.terms > 1 else "rounding"
    limit = (
        f"{row.share:.3g} times what {sums} allows ({row.tolerance:.2g})"
        if row.tolerance > TINY
        else "copies are exact"
    )
    size = f"by up to {row.absolute:.3g}, {row.relative:.2g} of the largest value; {limit}"
    return f"{row.side}: {subject}, {size}" + (f"; {row.words}" if row.words else "")


def plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
