"""Caffe's kinds of files, told by their content."""

from __future__ import annotations

import re
from pathlib import Path

from multiseg.backend import FileKind

_COMMENT = re.compile(rb"#[^\n]*")
_LAYER = re.compile(rb"(?:^|[\s;,}])layers?\s*:?\s*\{")
_SOLVER = re.compile(rb"^\s*(?:(?:train_)?net\s*:\s*[\"']|(?:base_lr|max_iter|solver_mode)\s*:)", re.MULTILINE)
_FIELD = re.compile(rb"\s*\w+\s*[:{]")


def _is_prototxt(head: bytes, path: Path) -> bool:
    """Text with layers; or a solver's, so that the error can say so; or fields of any names in a file called .prototxt."""
    if b"\0" in head:
        return False
    text = _COMMENT.sub(b"", head.removeprefix(b"\xef\xbb\xbf"))
    named = path.suffix == ".prototxt" and _FIELD.match(text)
    return bool(named or _LAYER.search(text) or (_SOLVER.search(text) and b"=" not in text))


def _is_caffemodel(head: bytes, path: Path) -> bool:
    """A serialised NetParameter: its first layer, or older `layers`, comes after nothing but the network's own fields.

    Field numbers are those of messages/caffe.proto: name 1, layers 2, input 3, input_dim 4, force_backward 5, state 6,
    debug_info 7, input_shape 8, layer 100.
    """
    at = 0
    while (found := _varint(head, at)) is not None:
        tag, at = found
        field, wire = tag >> 3, tag & 7
        value = _varint(head, at)
        if value is None or not (1 <= field <= 8 or field == 100):
            return False
        number, at = value
        if wire == 0 and field in (4, 5, 7):
            continue
        body = head[at : at + number]
        if wire != 2 or field in (5, 7):
            return False
        if field in (2, 100):  # it begins with its name, inputs or outputs: text; in the first syntax with a message
            inner = _varint(body, 1)
            if inner is None or body[0] not in (0x0A, 0x12, 0x1A, 0x22):
                return False
            return (field == 2 and body[0] == 0x0A) or _printable(body[inner[1] : inner[1] + inner[0]])
        if field in (1, 3) and not _printable(body):
            return False
        at += number
    return False


def _printable(text: bytes) -> bool:
    return not any(byte < 0x20 or byte == 0x7F for byte in text)


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    """The number that stands there in protobuf's encoding (seven bits a byte, the least first), and where it ends."""
    number = 0
    for index, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, at + index + 1
    return None


KINDS = (
    FileKind("Caffe prototxt", (".prototxt",), "network", _is_prototxt),
    FileKind("caffemodel", (".caffemodel",), "weights", _is_caffemodel),
)
