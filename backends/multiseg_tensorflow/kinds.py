"""TensorFlow's kinds of files, told by their content."""

from __future__ import annotations

import re
from pathlib import Path

from multiseg.backend import FileKind


def _is_digits(head: bytes, path: Path) -> bool:
    return re.search(rb"^class\s+UserModel\b", head, re.MULTILINE) is not None


KINDS = (FileKind("DIGITS TensorFlow file", (".py",), "network", _is_digits),)
