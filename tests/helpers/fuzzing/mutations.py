"""Seeded changes of a file's content: bits, pieces, numbers, and values of JSON."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Sequence
from typing import Any

LARGEST = 1 << 20  # bytes of a changed file
BYTES = [b"", b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8, b"\x80" * 10, b"\n", b'"',
         b"\xed\xa0\x80", b"\xef\xbb\xbf", b"../", b"%s", b"\r\n", "\ufdd0{}\ufdd1".encode()]  # fmt: skip
NUMBERS = ["0", "-1", "-0", "1", "255", "256", "65536", "2147483647", "2147483648", "4294967296", "9223372036854775807",
           "-9223372036854775808", "18446744073709551616", "1e308", "1e309", "-1e999", "nan", "inf", "1e-400", "0.5", "1" * 400,
           "1" * 5000, ".", "0x7fffffff", "true", "''"]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 0.5, -0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, -(2**63), 2**64, 10**400, "", "x",
    "\0", "\ud800", "../../x", "/", ".", "5", "a" * 5000, [], [[]], [1], [None], ["x"], [1, 2, 3], [0, 0, 0], [-1, 8, 8],
    [10**9] * 3, [1.5, 2.5, 3.5], {}, {"x": 1}, {"": None},
]  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def mutated(content: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    """A changed copy of a file's content; ``others`` are contents of other files, of which pieces are taken."""
    data = content
    if draw.random() < 0.6 and (changed := _json(content, draw)) is not None:
        data = changed
        if draw.random() < 0.9:
            return data[:LARGEST]
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        data = draw.choice(_CHANGES)(data, draw, others)
    return data[:LARGEST]


def _flip(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 10)) if changed else 0):
        changed[_place(changed, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _place(data: bytes | bytearray, draw: random.Random) -> int:
    """A position, more often near the beginning, where headers are."""
    return draw.randrange(min(len(data), 200) if draw.random() < 0.5 else len(data)) if data else 0


def _replace(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    at, new = _place(data, draw), draw.choice(BYTES)
    return data[:at] + new + data[at + draw.choice((0, len(new), len(new))) :]


def _truncate(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _cut(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    start = _place(data, draw)
    return data[:start] + data[start + draw.choice((1, 2, 4, 8, 100)) :]


def _repeat(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    start = _place(data, draw)
    piece = data[start : start + draw.choice((1, 4, 20, 200, 2000))]
    return data[:start] + piece * draw.choice((2, 3, 50, 2000)) + data[start + len(piece) :]


def _splice(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    other = draw.choice(others) if others else data
    start, at = _place(other, draw), _place(data, draw)
    piece = other[start : start + draw.choice((4, 50, 1000, len(other)))]
    return data[:at] + piece + data[at + draw.choice((0, len(piece))) :]


def _number(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    matches = list(_NUMBER.finditer(data[:50_000]))
    if not matches:
        return _integer(data, draw, others)
    match = draw.choice(matches)
    return data[: match.start()] + draw.choice(NUMBERS).encode() + data[match.end() :]


def _integer(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    """Replace a binary number of 1 to 8 bytes by an extreme one."""
    size = draw.choice((1, 2, 4, 8))
    at = _place(data, draw)
    value = draw.choice(
        (0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1, 1 << draw.randrange(8 * size))
    )
    return data[:at] + value.to_bytes(size, draw.choice(("little", "big"))) + data[at + size :]


def _nest(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    at, (opening, closing) = (
        _place(data, draw),
        draw.choice(((b"[", b"]"), (b"{", b"}"), (b"(", b")"), (b'{"a":', b"}"))),
    )
    depth = draw.choice((5, 1000, 100_000))
    return data[:at] + opening * depth + draw.choice((b"", closing * depth)) + data[at:]


_CHANGES = (_flip, _flip, _replace, _truncate, _cut, _repeat, _splice, _number, _number, _integer, _integer, _nest)


def _json(content: bytes, draw: random.Random) -> bytes | None:
    """JSON with one value replaced, removed, moved or nested; None if the content is not JSON."""
    if content[:1] not in (b"{", b"["):
        return None
    try:
        root = json.loads(content)
    except ValueError:
        return None
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        places = list(_places(root))
        if not places:
            break
        container, key = draw.choice(places)
        action = draw.random()
        if action < 0.15:
            del container[key]
        elif action < 0.3:
            other, name = draw.choice(places)
            container[key] = copy.deepcopy(other[name])
        elif action < 0.35 and isinstance(container, dict):
            container[draw.choice(("", "x", "format", "\0"))] = container.pop(key)
        else:
            value = copy.deepcopy(draw.choice(VALUES))
            for _ in range(draw.choice((0, 0, 0, 0, 1, 60))):
                value = draw.choice(([value], {"x": value}))
            container[key] = value
    try:
        return json.dumps(root).encode()
    except (ValueError, RecursionError):  # a value in itself
        return None


def _places(value: Any) -> Any:
    """All places of values in containers, as container and key."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        for key, inner in list(pairs):
            yield item, key
            if isinstance(inner, (dict, list)):
                waiting.append(inner)
