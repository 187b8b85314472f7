"""Unique names of layers and values."""

from __future__ import annotations

from collections.abc import Container


def unused(name: str, taken: Container[str], separator: str = "_", first: int = 2) -> str:
    """Return ``name``, or the first of ``name_2``, ``name_3`` and so on that is not in ``taken``.

    ``first`` is the first number that is appended, after ``separator``.
    """
    candidate, number = name, first
    while candidate in taken:
        candidate, number = f"{name}{separator}{number}", number + 1
    return candidate
