"""The shares of planted mistakes that must be found, and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

Outcome = tuple[str, bool, bool]  # of a mistake: its kind, whether it is found, whether its place or cause is named


def check_shares(backend: str, outcomes: Collection[Outcome]) -> None:
    """Print how many mistakes were missed and not named; assert that 99 % are found, and 95 % named."""
    missed = Counter(kind for kind, found, _ in outcomes if not found)
    unnamed = Counter(kind for kind, found, named in outcomes if found and not named)
    print(f"{backend}: {len(outcomes)} mistakes of {len({kind for kind, _, _ in outcomes})} kinds; "
          f"missed: {dict(missed)}; not named: {dict(unnamed)}")  # fmt: skip
    assert missed.total() <= 0.01 * len(outcomes), missed
    assert missed.total() + unnamed.total() <= 0.05 * len(outcomes), unnamed
