"""The result of a campaign."""

from __future__ import annotations

from dataclasses import dataclass

from multiseg.campaign.outcome import Outcomes, Verdict


@dataclass
class Campaign:
    """The result of a campaign so far: ``outcomes``, and its processes' ``seconds`` of this call for ``checked`` checks."""

    outcomes: Outcomes
    backends: tuple[str, ...]
    networks: int
    seconds: float = 0.0
    checked: int = 0
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Whether no outcome is an alarm."""
        return not self.outcomes.alarms

    @property
    def rate(self) -> float:
        """Networks in one backend that were checked in an hour."""
        return 3600 * self.checked / self.seconds if self.seconds else 0.0

    def count(self, backend: str, verdict: Verdict) -> int:
        """Return the number of outcomes of a backend with a verdict."""
        return sum(row.backend == backend and row.verdict == verdict for row in self.outcomes.rows)
