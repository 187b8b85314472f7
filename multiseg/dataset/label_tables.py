"""Read class names, colours and maps of values, from files or from Python values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multiseg.errors import DatasetError, SettingsError, setting
from multiseg.files import parse_json, read_text

Colour = tuple[int, int, int]
Key = int | Colour
PALETTE = "palette"  # colours: those of the palette that the mask files share

_SEPARATORS = re.compile(r"[\s,;:=>-]+")
# Okabe and Ito (2008), "Color Universal Design": told apart by people with any kind of colour vision. Black comes first: it is
# usually the background.
_OKABE_ITO: tuple[Colour, ...] = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
# Fourteen colours of the scheme "discrete rainbow" in Paul Tol, "Colour Schemes", SRON/EPS/TN/09-002, issue 3.2 (2021), designed
# for the same people. Each differs most from all before it: by a CIEDE2000 difference of at least 5.4 for normal vision and for
# protanopia, deuteranopia and tritanopia as simulated by Machado, Oliveira and Fernandes (2009). The others are too similar.
_TOL_RAINBOW: tuple[Colour, ...] = (
    (114, 25, 14), (232, 236, 251), (136, 46, 114), (144, 201, 135), (202, 172, 203), (153, 79, 136), (66, 21, 10),
    (97, 149, 207), (165, 23, 14), (202, 224, 171), (217, 204, 227), (220, 5, 12), (78, 178, 101), (170, 111, 158),
)  # fmt: skip


def read_names(source: str | os.PathLike[str] | Iterable[Any]) -> tuple[str, ...]:
    """Return class names: the lines of a file up to the first blank one, as in DIGITS, or the items of a list.

    Raises DatasetError for a file that cannot be read or is empty, SettingsError for a list without names or with a repeated one.
    """
    if isinstance(source, (str, os.PathLike)):
        names = []
        for line in _lines(source, "classes"):
            if not line:
                break
            names.append(line)
        where = str(os.fspath(source))
    else:
        names, where = [str(name).strip() for name in source], str(setting("classes"))
    if not names or not all(names):
        raise SettingsError(f"{where}: has no class names; write the name of class 0 first, then the others in order")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise SettingsError(f"{where}: names {repeated!r} twice; each class needs a name of its own")
    return tuple(names)


def read_colours(source: str | os.PathLike[str] | Iterable[Sequence[int]]) -> tuple[Colour, ...]:
    """Return the colours of the classes: one ``R G B`` in each line of a file (commas are allowed), or the items of a list.

    Raises DatasetError for a file that cannot be read, SettingsError for anything that is not three numbers of 0 to 255, and for
    a colour of two classes.
    """
    colours: list[Colour] = []
    if isinstance(source, (str, os.PathLike)):
        where = str(os.fspath(source))
        rows: list[tuple[str, Any]] = []
        for number, line in enumerate(_lines(source, "colours"), 1):
            if not line:
                break
            rows.append((f"{where}:{number}", [part for part in _SEPARATORS.split(line) if part]))
    else:
        where = str(setting("colours"))
        rows = [(f"{where}, item {number}", row) for number, row in enumerate(source)]
    for place, row in rows:
        colour = _colour(row)
        if colour is None:
            raise SettingsError(
                f"{place}: {_text(row)} is not a colour; write three numbers of 0 to 255: red, green, blue"
            )
        if colour in colours:
            raise SettingsError(f"{place}: the colour {_text(colour)} is class {colours.index(colour)} already")
        colours.append(colour)
    if not colours:
        raise SettingsError(f"{where}: has no colours; write one of each class, class 0 first")
    return tuple(colours)


def read_map(source: str | os.PathLike[str] | Mapping[Any, Any]) -> dict[Key, int]:
    """Return a map from values or colours in the masks to labels.

    ``source`` is a mapping, whose keys are numbers or colours (``7``, ``(128, 64, 128)``, or either as text); a text such as
    ``255:1,128:0``; or a file: JSON, or in each line a value or a colour followed by its label, e.g. ``7 0`` or ``128 64 128 0``.
    Raises DatasetError for a file that cannot be read, SettingsError for an invalid entry.
    """
    entries: list[tuple[str, Any, Any]]
    name = str(setting("label_map"))
    if isinstance(source, Mapping):
        entries = [(name, key, value) for key, value in source.items()]
    else:
        text = os.fspath(source)
        # a long text is no name of a file
        if not os.path.exists(text) and re.fullmatch(r"\s*\d+\s*[:=]\s*\d+\s*(,\s*\d+\s*[:=]\s*\d+\s*)*", text):  # noqa: PTH110
            lines = text.split(",")
            where = [name] * len(lines)
        else:
            lines = _lines(text, "label_map")
            where = [f"{text}:{number}" for number in range(1, len(lines) + 1)]
        content = "\n".join(lines)
        if content.startswith("{"):
            try:
                parsed = parse_json(content)
            except ValueError as error:
                raise SettingsError(f"{text}: is not JSON ({error})") from error
            entries = [(text, key, value) for key, value in parsed.items()]
        else:
            rows = [
                (place, [part for part in _SEPARATORS.split(line) if part])
                for place, line in zip(where, lines, strict=True)
                if line
            ]
            entries = [(place, row[:-1], row[-1] if row else None) for place, row in rows]
    result: dict[Key, int] = {}
    for place, raw_key, raw_value in entries:
        key, value = _key(raw_key), _number(raw_value)
        if key is None or value is None or value > 255:
            raise SettingsError(
                f"{place}: {_text(raw_key)} -> {_text(raw_value)} is not an entry of a map; map a value, or a colour of three "
                "numbers, to a label of 0 to 255"
            )
        if result.get(key, value) != value:
            raise SettingsError(
                f"{place}: {_text(raw_key)} is mapped to {result[key]} and to {value}; keep one of them"
            )
        result[key] = value
    if not result:
        raise SettingsError(f"{name}: is empty; leave it out, or map values to labels")
    return result


def default_colours(count: int) -> tuple[Colour, ...]:
    """Return ``count`` different colours, of which people with any kind of colour vision can tell the first 22 apart.

    They are Okabe and Ito's eight, fourteen of Tol's, and those of PASCAL VOC's formula that are not among them.
    """
    colours = [*_OKABE_ITO, *_TOL_RAINBOW][:count]
    index = 1
    while len(colours) < count:
        colour = voc_colour(index)
        if colour not in colours:
            colours.append(colour)
        index += 1
    return tuple(colours)


def voc_colour(index: int) -> Colour:
    """Return the colour of a class in PASCAL VOC's palette: bits 0, 1, 2 of each three of the index, from the highest bit."""
    channels = [0, 0, 0]
    for shift in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * shift + channel) & 1) << (7 - shift)
    return channels[0], channels[1], channels[2]


BORDER_COLOUR = voc_colour(255)  # (224, 224, 192), of the ignored borders of objects in PASCAL VOC


def _lines(source: str | os.PathLike[str], name: str) -> list[str]:
    """Return the stripped lines of a text file; ``name`` is the setting that names the file."""
    try:
        text = read_text(source)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{setting(name, os.fspath(source))}: cannot be read: {reason}") from error
    return [line.strip() for line in text.strip().splitlines()]


def _number(value: Any) -> int | None:
    """Return a whole number from 0, also one written as text; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = int(value)
        return number if number == float(value) and number >= 0 else None
    except (TypeError, ValueError, OverflowError):
        return None


def _colour(value: Any) -> Colour | None:
    """Return three numbers of 0 to 255; None for anything else."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return None
    numbers = [_number(part) for part in value]
    if len(numbers) != 3 or any(number is None or number > 255 for number in numbers):
        return None
    return numbers[0] or 0, numbers[1] or 0, numbers[2] or 0


def _key(value: Any) -> Key | None:
    """Return a number, or a colour, also one written as text or as a list of texts; None for anything else."""
    if isinstance(value, str):
        value = [part for part in _SEPARATORS.split(value.strip(" ()[]")) if part]
    if isinstance(value, Iterable):
        parts = list(value)
        return _number(parts[0]) if len(parts) == 1 else _colour(parts)
    return _number(value)


def _text(value: Any) -> str:
    """Return a value of a table for a message."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "nothing"
    return repr(value)
