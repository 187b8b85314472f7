"""One comparison of a parity check, and tables of comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from multiseg.parity.detail import Detail, Planes, not_finite
from multiseg.reference.bounded import TINY, Array, Bounded, pieces

LARGEST = float(np.finfo(np.float32).max)
STAGES = ("network", "weights", "forward", "output", "loss", "gradient", "step", "dropout", "stored")
GRADIENT_OF = "gradient of "  # before the names of parameters in stages that compare more of them than the gradient
DRAWN = ("forward", "output")  # stages whose tensors the page shows
TITLES = {
    "network": "Networks",
    "weights": "Weights that were given",
    "forward": "Forward, layer by layer",
    "output": "Output, end to end",
    "loss": "Loss",
    "gradient": "Gradients",
    "step": "Weights after each step",
    "dropout": "Training with dropout",
    "stored": "Values in the golden file, end to end",
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
    - ``unjudged``: the number of elements without a finite value or tolerance in the reference; ``not_finite``: the number of
      elements that are NaN or infinite where the reference is finite; ``words``: the reason for a failure, or None.
    - ``mean``, ``median``, ``percentile_99``: of the differences. ``worst``: the index of the element that is nearest to its
      tolerance or farthest beyond it, with the reference's value ``expected`` and the framework's ``measured``. ``histogram``:
      the number of elements by their share of the tolerance (multiseg.parity.detail.SHARES). Steps within their tolerance have
      no median, percentile and histogram.
    - ``images``: the number of images that a row of several batches covers, and ``image`` the one in the dataset with the worst
      element. Maximum, mean, histogram and counts are those of all images, median, percentile and resolution those of its batch.
    - ``planes``: the tensors around the worst element, of layers, outputs, and whatever is beyond its tolerance.
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
    not_finite: int = 0
    mean: float = 0.0
    median: float | None = None
    percentile_99: float | None = None
    worst: tuple[int, ...] | None = None
    expected: float | None = None
    measured: float | None = None
    histogram: tuple[int, ...] = ()
    images: int | None = None
    image: int | None = None
    planes: Planes | None = field(default=None, repr=False, compare=False)

    @property
    def subject(self) -> str:
        """The name of the layer, value or parameter that is compared."""
        return self.name.removeprefix(GRADIENT_OF)

    @property
    def verdict(self) -> str:
        """``equal``, ``rounding``, ``different``, ``not finite``, or ``incomparable`` (networks or shapes that differ)."""
        if self.not_finite:
            return "not finite"
        if self.ok:
            return "rounding" if self.absolute else "equal"
        return "different" if math.isfinite(self.share) else "incomparable"

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the tensors as plain values."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "planes"}
        return {**values, "ok": self.ok, "verdict": self.verdict}

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
        largest = size = total = share = tolerance = summed = 0.0
        unjudged = worst = 0
        for part in pieces(measured.size):
            value, allowed = expected.value.ravel()[part], bounds[part] + TINY
            # elements beyond the range of float32, or NaN, in the reference cannot be compared
            comparable = np.isfinite(allowed) & (np.abs(value) < LARGEST)
            if not comparable.all():
                unjudged += int(comparable.size - comparable.sum())
                value, allowed = np.where(comparable, value, 0.0), np.where(comparable, allowed, 1.0)
            difference = np.abs(np.where(comparable, measured.ravel()[part], 0.0) - value)
            if not np.isfinite(difference).all():
                return cls._not_finite(side, stage, name, expected, measured, step)
            shares = difference / allowed
            nearest = int(shares.argmax())
            if shares[nearest] >= share:
                share, tolerance, worst = float(shares[nearest]), float(allowed[nearest]), part.start + nearest
            largest, size = max(largest, float(difference.max())), max(size, float(np.abs(value).max()))
            total, summed = total + float(allowed.sum()), summed + float(difference.sum())
        place = tuple(int(at) for at in np.unravel_index(worst, measured.shape))
        detail = Detail.of(expected, measured) if stage != "step" or share > 1 else None
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
            mean=summed / max(measured.size - unjudged, 1),
            median=None if detail is None else detail.median,
            percentile_99=None if detail is None else detail.percentile,
            worst=place,
            expected=float(expected.value[place]),
            measured=float(measured[place]),
            histogram=detail.histogram if detail else (),
            planes=Planes.of(expected.value, measured, place) if stage in DRAWN or share > 1 else None,
        )

    def joined(self, other: ParityRow) -> ParityRow:
        """Return the row for the images of both rows, which have the same name."""
        counts = sum(self.histogram), sum(other.histogram)
        total = sum(row.mean * count for row, count in zip((self, other), counts, strict=True) if count)
        return replace(
            other if other.share > self.share else self,
            absolute=max(self.absolute, other.absolute),
            relative=max(self.relative, other.relative),
            mean=total / max(sum(counts), 1),
            unjudged=self.unjudged + other.unjudged,
            not_finite=self.not_finite + other.not_finite,
            histogram=tuple(map(sum, zip(self.histogram, other.histogram, strict=True))),
            images=(self.images or 0) + (other.images or 0),
            words=self.words or other.words,
        )

    @classmethod
    def _not_finite(
        cls, side: str, stage: str, name: str, expected: Bounded, measured: Array, step: int | None
    ) -> ParityRow:
        """Return the row of an array that has NaN or infinity where the reference is finite."""
        bounds = np.broadcast_to(expected.bound, measured.shape).ravel()
        comparable = np.isfinite(bounds) & (np.abs(expected.value.ravel()) < LARGEST)
        count, place, words = not_finite(expected, measured, comparable)
        detail = Detail.of(expected, measured)
        return replace(
            cls.wrong(side, stage, name, words, step),
            terms=expected.terms,
            not_finite=count,
            mean=math.inf,
            median=detail.median,
            percentile_99=detail.percentile,
            worst=place,
            expected=float(expected.value[place]),
            measured=float(measured[place]),
            histogram=detail.histogram,
            planes=Planes.of(expected.value, measured, place),
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
    if not math.isfinite(row.share):
        return row.verdict
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
        "stored": f"{row.name!r} is the first that differs from the golden file",
        "output": f"the output {row.name!r} differs",
        "loss": "the loss differs",
        "gradient": f"the gradient of {row.name!r} is the first that differs",
        "step": f"{row.name!r} is the first to differ, after step {row.step}",
        "dropout": f"in training with dropout, {row.name!r} is the first that differs"
        + (f", after step {row.step}" if row.step else ""),
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
