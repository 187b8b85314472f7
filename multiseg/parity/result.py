"""What a check of parity comes to: a row for every number that was compared, and the first difference in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from multiseg.errors import SettingsError
from multiseg.files import write_text
from multiseg.reference.bounded import TINY, Array, Bounded, pieces
from multiseg.topology.words import listed

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
class Row:
    """One comparison with the reference.

    - ``side``: which network and backend; ``stage``: one of STAGES; ``name``: of a layer or parameter, as the reference has it;
      ``step``: the number of the training step, from 1, or None.
    - ``absolute``: the largest difference; ``relative``: that over the largest value of the reference.
    - ``share``: the largest difference over its tolerance, and ``tolerance`` that which is meant there; beyond 1 is beyond
      rounding. A tolerance follows from sums of ``terms`` terms (multiseg.reference.bounded).
    - ``resolution``: the mean tolerance over the largest value of the reference: what is smaller than that may not be seen.
    - ``unjudged``: how many numbers the reference has no finite value or tolerance for; ``words``: what is wrong, where it is.
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
    def of(cls, side: str, stage: str, name: str, expected: Bounded, measured: Array, step: int | None = None) -> Row:
        """Compare an array with what the reference makes of it."""
        if measured.shape != expected.value.shape:
            return cls.wrong(side, stage, name, f"has the shape {measured.shape}, not {expected.value.shape}", step)
        if not measured.size:
            return cls(side, stage, name, step=step)
        bounds = np.broadcast_to(expected.bound, measured.shape).ravel()
        largest = size = total = share = tolerance = 0.0
        unjudged = 0
        for part in pieces(measured.size):
            value, allowed = expected.value.ravel()[part], bounds[part] + TINY
            # where the reference itself leaves float32's range, or comes to no number, nothing is to be told
            judged = np.isfinite(allowed) & (np.abs(value) < LARGEST)
            if not judged.all():
                unjudged += int(judged.size - judged.sum())
                value, allowed = np.where(judged, value, 0.0), np.where(judged, allowed, 1.0)
            difference = np.abs(np.where(judged, measured.ravel()[part], 0.0) - value)
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
    def wrong(cls, side: str, stage: str, name: str, words: str, step: int | None = None) -> Row:
        """What cannot be compared number by number."""
        return cls(side, stage, name, math.inf, math.inf, share=math.inf, step=step, words=words)


@dataclass
class Parity:
    """``rows`` in the order of STAGES; ``reference`` says which network they are compared with.

    ``notes``: what is to be known of it; ``left_out``: what was not compared, and why. ``apart``: for each side how far its
    weights are from the first one's after each step, the largest difference of a parameter over its largest weight; it has no
    verdict, as training magnifies rounding.
    """

    reference: str
    sides: list[str]
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    apart: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every difference is within its tolerance, of what was compared; see ``complete``."""
        return all(row.ok for row in self.rows)

    @property
    def complete(self) -> bool:
        """Whether nothing was left out: for want of a rule or a finite number, or because something before it differs."""
        return bool(self.rows) and not self.left_out and not any(row.unjudged for row in self.rows)

    @property
    def first(self) -> Row | None:
        """The first comparison that is beyond its tolerance: by stage, step, and the order of computation."""
        wrong = [row for row in self.rows if not row.ok]
        return min(wrong, key=_order, default=None)

    @property
    def first_divergence(self) -> str | None:
        """The first difference beyond rounding, in words; None where there is none."""
        row = self.first
        return None if row is None else sentence(row)

    @property
    def differences(self) -> list[str]:
        """The first difference of each side that has one, in words; of two networks that are not the same, all."""
        found = []
        for side in sorted(self.sides, key=lambda name: self.first is None or name != self.first.side):
            wrong = [row for row in self.rows if row.side == side and not row.ok]
            first = min(wrong, key=_order, default=None)
            if first is not None:
                found += [sentence(row) for row in wrong if row is first or row.stage == first.stage == "network"]
        return found

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row for each layer or parameter, stage and side as plain values; of the steps, the one nearest to its limit."""
        return [{**asdict(row), "ok": row.ok} for row in worst_steps(self.rows)]

    @property
    def headline(self) -> str:
        """One sentence."""
        compared = [row for row in self.rows if row.stage not in ("network", "weights")]
        if self.ok and not compared:
            return "nothing was computed by both"
        if self.ok:
            largest = max(self.rows, key=lambda row: row.share)
            place = f"{largest.name} of {largest.side}" + (f" at step {largest.step}" if largest.step else "")
            far = "" if self.complete else ", as far as they were compared"
            return (
                f"{listed(self.sides)} agree{'s' * (len(self.sides) == 1)} with the float64 reference of {self.reference}{far}: "
                f"{len(self.rows):,} comparisons, none beyond rounding; nearest to its limit is {place}, at "
                f"{percent(largest.share)} of it"
            )
        return self.first_divergence or ""

    def __str__(self) -> str:
        return "\n".join([self.headline, *[f"not compared: {each}" for each in self.left_out], *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold; what is not finite is None."""
        return {
            "ok": self.ok,
            "complete": self.complete,
            "first_divergence": self.first_divergence,
            "headline": self.headline,
            "reference": self.reference,
            "sides": self.sides,
            "settings": self.settings,
            "notes": self.notes,
            "left_out": self.left_out,
            "apart": {side: [_plain(value) for value in values] for side, values in self.apart.items()},
            "rows": [{key: _plain(value) for key, value in {**asdict(row), "ok": row.ok}.items()} for row in self.rows],
        }

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page and return its path. Raises SettingsError where it cannot be written."""
        from multiseg.report.parity import render

        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, render(self))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be written ({error.strerror or error})") from error
        return path


def _order(row: Row) -> tuple[int, int]:
    return STAGES.index(row.stage), row.step or 0


def rows_by_stage(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, Row]]]:
    """Rows by stage, name and side, in this order; of the steps as :func:`worst_steps`."""
    found: dict[str, dict[str, dict[str, Row]]] = {}
    for row in sorted(worst_steps(rows), key=lambda row: STAGES.index(row.stage)):
        found.setdefault(row.stage, {}).setdefault(row.name, {})[row.side] = row
    return found


def figures(row: Row) -> str:
    """The largest difference, and the share of the tolerance, as in "1.3e-05, 28 %"."""
    if row.stage in ("network", "weights"):
        return ("equal" if row.stage == "weights" else "the same") if row.ok else f"{row.absolute:.1e}"
    return f"{row.absolute:.1e}, {percent(row.share)}" if row.absolute else "0"


def percent(share: float) -> str:
    """A share of a tolerance, as in 0.3 %, or 240 times."""
    if share > 1:
        return f"{share:.3g} times" if share < 1e9 else "beyond"
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.0f} %" if share > 0.095 else f"{100 * share:.2g} %"


def worst_steps(rows: Iterable[Row]) -> list[Row]:
    """Rows without steps, and of each parameter's and side's steps the first that is wrong, else the nearest to its limit."""
    found: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = (row.side, row.stage, row.name)
        known = found.get(key)
        if known is None or (known.ok and row.share > known.share):
            found[key] = row
    return list(found.values())


def sentence(row: Row) -> str:
    """A row that is beyond its tolerance, in words."""
    what = {
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
        return f"{row.side}: {what}: it {row.words}"
    sums = f"rounding in sums of {row.terms:,} terms" if row.terms > 1 else "rounding"
    limit = (
        f"{row.share:.3g} times what {sums} allows ({row.tolerance:.2g})"
        if row.tolerance > TINY
        else "copies are exact"
    )
    size = f"by up to {row.absolute:.3g}, {row.relative:.2g} of the largest value; {limit}"
    return f"{row.side}: {what}, {size}" + (f"; {row.words}" if row.words else "")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
