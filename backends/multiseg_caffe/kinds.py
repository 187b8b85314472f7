"""Caffe's kinds of files, told by their content."""

from __future__ import annotations

import re
from pathlib import Path

from multiseg.backend import FileKind


def _is_prototxt(head: bytes, path: Path) -> bool:
    return re.search(rb"^\s*layers?\s*:?\s*\{", head, re.MULTILINE) is not None


KINDS = (FileKind("Caffe prototxt", (".prototxt",), "network", _is_prototxt),)
