"""What a test lets other processes read of a dataset; they import it from here, as they cannot import test files."""

from __future__ import annotations

from pathlib import Path

from multiseg.dataset import open_split


def sum_of_features(path: Path) -> int:
    """The sum of all values of a split's features."""
    split = open_split(path)
    return sum(int(split[index][0].sum()) for index in range(len(split)))
