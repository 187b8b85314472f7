"""Kinds of JSON values, and the check of a mapping against a table of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

LONGEST = 60  # characters of a value that a message shows
_MISSING = object()


@dataclass(frozen=True)
class Kind:
    """A kind of values: ``words`` names it in messages, with an article. An ``optional`` value may be missing."""

    words: str
    valid: Callable[[Any], bool]
    optional: bool = False


Schema = Mapping[str, Kind]  # by key; keys of nested objects with dots: settings.epochs


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; a whole number is one of 64 bits, as larger ones may have no float."""
    return (isinstance(value, float) and math.isfinite(value)) or is_whole(value)


def _is_text(value: Any) -> bool:
    """Return whether a value is text that can be a file's name: bytes that are not UTF-8 are surrogates from dc80 to dcff."""
    try:
        return isinstance(value, str) and b"\0" not in value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False


def list_of(kind: Kind, words: str, count: int | None = None) -> Kind:
    """Return the kind of lists of values of ``kind``, of ``count`` values if it is specified."""
    return Kind(
        words, lambda value: isinstance(value, list) and count in (None, len(value)) and all(map(kind.valid, value))
    )


def mapping_of(kind: Kind, words: str) -> Kind:
    """Return the kind of objects all of whose values are of ``kind``."""
    return Kind(words, lambda value: isinstance(value, dict) and all(map(kind.valid, value.values())))


def or_none(kind: Kind) -> Kind:
    """Return a kind that null belongs to, too."""
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.valid(value), kind.optional)


def optional(kind: Kind) -> Kind:
    """Return a kind whose key may be missing, as in files of versions that did not have it."""
    return replace(kind, optional=True)


ANY = Kind("a value", lambda value: True)
TEXT = Kind("a text", _is_text)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
WHOLE = Kind("a whole number", is_whole)  # of 64 bits
POSITIVE = Kind("a positive whole number", lambda value: is_whole(value) and value > 0)
NUMBER = Kind("a number", is_number)  # finite
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
SHAPE = list_of(POSITIVE, "three positive whole numbers", 3)


def problem(values: object, schema: Schema) -> str | None:
    """Return the first key of ``schema`` whose value is missing or of another kind, in words; None if all are right.

    Keys that the schema does not have are not checked.
    """
    if not isinstance(values, dict):
        return "its content is not a JSON object"
    for key, kind in schema.items():
        value: Any = values
        for part in key.split("."):
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        if value is _MISSING:
            if not kind.optional:
                return f"{key} is missing; it is {kind.words}"
        elif not kind.valid(value):
            return f"{key} is {_shown(value)}, not {kind.words}"
    return None


def _shown(value: Any) -> str:
    """Return a value in the form of Python, shortened; a container by its type alone, as it may nest deeply."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} values"
    text = repr(value) if not isinstance(value, int) or abs(value) < 2**200 else "a number of very many digits"
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
