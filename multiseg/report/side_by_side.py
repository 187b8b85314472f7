"""Runs side by side, as plain data: their figures, whether they can be ranked, and what they agree on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multiseg.errors import SettingsError
from multiseg.report import verdict
from multiseg.report.agreement import Agreement, agreement
from multiseg.report.facts import RunFacts, gather
from multiseg.run.run import Run


class SideBySide:
    """Runs, and their facts read from the run folders."""

    def __init__(self, runs: Sequence[Run], images: int, grid: Path | None) -> None:
        self.runs = tuple(runs)
        self.images = images
        self.grid = grid
        self.facts: tuple[RunFacts, ...] = tuple(gather(self.runs))
        self.left_out: dict[str, str] = {}
        """After :meth:`to_html`: label of a run that some pictures had to leave out -> why."""

    @property
    def comparable(self) -> bool:
        """Whether all runs were trained over the same images; if not, they cannot be ranked."""
        return len({each.content for each in self.facts}) == 1

    @property
    def headline(self) -> str:
        """One sentence: which run did best, and at what cost."""
        return verdict.headline(self.facts, self.comparable)

    @property
    def agreement(self) -> Agreement | None:
        """Whether backends differ by less than seeds do; None where the runs do not say."""
        try:
            return agreement(self.facts)
        except SettingsError:
            return None
