"""A comparison of runs as plain data: their facts, whether they can be ranked, and whether backends agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multiseg.errors import SettingsError
from multiseg.report import verdict
from multiseg.report.agreement import Agreement, agreement
from multiseg.report.facts import RunFacts, gather
from multiseg.report.parting import Parting, partings
from multiseg.run.run import Run


class SideBySide:
    """Runs, and their facts read from the run folders."""

    def __init__(self, runs: Sequence[Run], images: int, grid: Path | None) -> None:
        self.runs = tuple(runs)
        self.images = images
        self.grid = grid
        self.facts: tuple[RunFacts, ...] = tuple(gather(self.runs))
        self.left_out: dict[str, str] = {}
        """After :meth:`to_html`: label of a run that is missing in some pictures -> error message."""

    @property
    def comparable(self) -> bool:
        """Whether all runs were trained on the same images; otherwise they cannot be ranked."""
        return len({each.content for each in self.facts}) == 1

    @property
    def headline(self) -> str:
        """One sentence: the best run, and its training time."""
        return verdict.headline(self.facts, self.comparable)

    @property
    def partings(self) -> list[Parting]:
        """Where the histories of runs of one seed in the recipe `equal` part; empty if there are no such runs."""
        return partings(self.facts)

    @property
    def agreement(self) -> Agreement | None:
        """The comparison of backends with seeds; None if the runs do not allow it."""
        try:
            return agreement(self.facts)
        except SettingsError:
            return None
