"""Names of layers and values: unique ones, and errors for unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable

from multiseg.errors import ModelError, setting


def unused(name: str, taken: Container[str], separator: str = "_", first: int = 2) -> str:
    """Return ``name``, or the first of ``name_2``, ``name_3`` and so on that is not in ``taken``.

    ``first`` is the first number that is appended, after ``separator``.
    """
    candidate, number = name, first
    while candidate in taken:
        candidate, number = f"{name}{separator}{number}", number + 1
    return candidate


def unknown_output(source: str, name: str, names: Iterable[str]) -> ModelError:
    """Return the error for the name of an output that a network does not have; ``names`` are those that it has, in order."""
    known = list(dict.fromkeys(names))
    similar = difflib.get_close_matches(name, known, 5, 0.5)
    inside = [other for other in known if name.lower() in other.lower() and other not in similar]
    candidates = [*similar, *inside[: 5 - len(similar)]]
    listed = (
        f"similar names: {', '.join(candidates)}" if candidates else f"its last layers are: {', '.join(known[-8:])}"
    )
    return ModelError(f"{source}: {setting('outputs', name)}: no layer or output has this name; {listed}")
