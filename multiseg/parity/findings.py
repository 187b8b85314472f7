"""The result of a parity check as plain data: one row per comparison, and a description of the first difference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from multiseg.parity.detail import WorstImage
from multiseg.parity.rows import ParityRow, order, percent, plain, sentence, worst_steps
from multiseg.topology import Topology
from multiseg.topology.words import listed


@dataclass
class Findings:
    """``rows`` in the order of STAGES; ``reference`` names the network that they are compared with, ``network`` describes it.

    ``notes``: remarks on the comparison; ``left_out``: what was not compared, and why. ``apart``: for each side the
    distance of its weights from the first side's after each step: the largest difference of a parameter relative to its largest
    weight. It has no tolerance, because training amplifies rounding.
    ``worst_images``: if several batches were compared, the image of each side that is nearest to its tolerance.
    ``recomputed``: in a check against a golden file, its values beside those that this version of multiseg computes.
    ``reduced``: the smallest parts that differ, in words, if they were requested.
    """

    reference: str
    sides: list[str]
    settings: dict[str, Any]
    rows: list[ParityRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    apart: dict[str, list[float]] = field(default_factory=dict)
    recomputed: list[ParityRow] = field(default_factory=list)
    reduced: list[str] = field(default_factory=list)
    network: Topology | None = field(default=None, repr=False)
    worst_images: dict[str, WorstImage] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        """Add what was compared of further sides."""
        for name in ("sides", "rows", "notes", "left_out", "reduced"):
            getattr(self, name).extend(getattr(other, name))
        self.apart |= other.apart
        self.worst_images |= other.worst_images

    @property
    def ok(self) -> bool:
        """Whether all differences that were compared are within their tolerances; see ``complete``."""
        return all(row.ok for row in (*self.recomputed, *self.rows))

    @property
    def reference_changed(self) -> str | None:
        """The first value of a golden file that this version of multiseg computes differently, in words; None if all agree."""
        row = next((row for row in self.recomputed if not row.ok), None)
        if row is None:
            return None
        size = (
            f"it {row.words}" if row.words else f"by up to {row.absolute:.3g}, {row.relative:.2g} of the largest value"
        )
        return (
            f"the reference changed: this version of multiseg does not compute what {row.side} has; the first difference is in "
            f"{row.name}: {size}"
        )

    @property
    def complete(self) -> bool:
        """Whether nothing was left out, be it without a rule or a finite number, or after an earlier difference."""
        return bool(self.rows) and not self.left_out and not any(row.unjudged for row in self.rows)

    @property
    def first(self) -> ParityRow | None:
        """The first comparison beyond its tolerance, by stage, step, and order of computation; None if there is none."""
        wrong = [row for row in self.rows if not row.ok]
        return min(wrong, key=order, default=None)

    def first_of(self, side: str) -> ParityRow | None:
        """Return the first comparison of a side beyond its tolerance, None if there is none."""
        return min((row for row in self.rows if row.side == side and not row.ok), key=order, default=None)

    @property
    def first_divergence(self) -> str | None:
        """The first difference beyond rounding, in words; None if there is none."""
        row = self.first
        return self.reference_changed or (None if row is None else sentence(row))

    @property
    def differences(self) -> list[str]:
        """The first difference of each side, in words; if the networks differ, all differences between them."""
        sentences = [self.reference_changed] if self.reference_changed else []
        for side in sorted(self.sides, key=lambda name: self.first is None or name != self.first.side):
            wrong = [row for row in self.rows if row.side == side and not row.ok]
            first = min(wrong, key=order, default=None)
            if first is not None:
                sentences += [sentence(row) for row in wrong if row is first or row.stage == first.stage == "network"]
        return sentences

    @property
    def table(self) -> list[dict[str, Any]]:
        """One dict of plain values by layer or parameter, stage and side; of the steps, the one nearest to its tolerance."""
        return [row.to_dict() for row in worst_steps(self.rows)]

    @property
    def headline(self) -> str:
        """Summary in one sentence."""
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
        """Return everything as plain values for JSON; numbers that are not finite become None."""
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
            "reduced": self.reduced,
            "apart": {side: [plain(value) for value in values] for side, values in self.apart.items()},
            "worst_images": {
                side: {name: plain(value) for name, value in image.to_dict().items()}
                for side, image in self.worst_images.items()
            },
            "reference_changed": self.reference_changed,
            **{
                key: [{name: plain(value) for name, value in row.to_dict().items()} for row in rows]
                for key, rows in (("rows", self.rows), ("recomputed", self.recomputed))
            },
        }
