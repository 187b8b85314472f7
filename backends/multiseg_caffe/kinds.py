"""Caffe's kinds of files, recognized by their content."""

from __future__ import annotations

import re
from pathlib import Path

from multiseg.backend import FileKind
from multiseg.files import hdf5

_COMMENT = re.compile(rb"#[^\n]*")
_LAYER = re.compile(rb"(?:^|[\s;,}])layers?\s*(?::\s*)?\{")
_SOLVER = re.compile(rb"^[ \t]*(?:(?:train_)?net\s*:\s*[\"']|(?:base_lr|max_iter|solver_mode)\s*:)", re.MULTILINE)
_FIELD = re.compile(rb"\s*\w+\s*[:{]")


def _is_prototxt(head: bytes, path: Path) -> bool:
    """Return whether a file is a prototxt: text with layers, or a solver (which the reader then rejects by name).

    A file with the suffix .prototxt may begin with any field.
    """
    if b"\0" in head:
        return False
    text = _COMMENT.sub(b"", head.removeprefix(b"\xef\xbb\xbf"))
    named = path.suffix == ".prototxt" and _FIELD.match(text)
    return bool(named or _LAYER.search(text) or (_SOLVER.search(text) and b"=" not in text))


def _is_caffemodel(head: bytes, path: Path) -> bool:
    """Return whether a file is a serialized NetParameter: only fields of the network precede its first `layer` or `layers`.

    Field numbers are those of messages/caffe.proto: name 1, layers 2, input 3, input_dim 4, force_backward 5, state 6,
    debug_info 7, input_shape 8, layer 100.
    """
    at = 0
    while (tag_and_end := _varint(head, at)) is not None:
        tag, at = tag_and_end
        field, wire = tag >> 3, tag & 7
        number_and_end = _varint(head, at)
        if number_and_end is None or not (1 <= field <= 8 or field == 100):
            return False
        number, at = number_and_end
        if wire == 0 and field in (4, 5, 7):
            continue
        body = head[at : at + number]
        if wire != 2 or field in (5, 7):
            return False
        if field in (
            2,
            100,
        ):  # a layer begins with its name, bottoms or tops, which are text; in V0 syntax with a message
            length_and_start = _varint(body, 1)
            if length_and_start is None or body[0] not in (0x0A, 0x12, 0x1A, 0x22):
                return False
            length, start = length_and_start
            return (field == 2 and body[0] == 0x0A) or _printable(body[start : start + length])
        if field in (1, 3) and not _printable(body):
            return False
        at += number
    return False


def _is_hdf5_caffemodel(head: bytes, path: Path) -> bool:
    """Return whether a file is in HDF5 with the groups of Caffe's weights, `data`, and `diff` if gradients are stored too."""
    names = hdf5.root_names(path, head)
    return head.startswith(hdf5.SIGNATURE) and (
        names in (["data"], ["data", "diff"]) or path.name.endswith(".caffemodel.h5")
    )


def _printable(text: bytes) -> bool:
    return not any(byte < 0x20 or byte == 0x7F for byte in text)


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    """Return the varint at offset ``at`` (protobuf: 7 bits per byte, least significant first) and the offset of its end.

    Return None if ``data`` ends before the varint does.
    """
    number = 0
    for index, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, at + index + 1
    return None


KINDS = (
    FileKind("Caffe prototxt", (".prototxt",), "network", _is_prototxt),
    FileKind("caffemodel", (".caffemodel",), "weights", _is_caffemodel),
    FileKind("caffemodel in HDF5", (".caffemodel.h5",), "weights", _is_hdf5_caffemodel, needs_network=True),
)
