"""PyTorch's and Torch7's kinds of files, told by their content."""

from __future__ import annotations

import re
from pathlib import Path

from multiseg.backend import FileKind


def _is_lua(head: bytes, path: Path) -> bool:
    return re.search(
        rb"^\s*(local\s|return\s+function\b|require\b)|\bnn\.\w+\s*\(", head, re.MULTILINE
    ) is not None and (re.search(rb"^\s*(import|from|class|def)\s", head, re.MULTILINE) is None)


def _is_python(head: bytes, path: Path) -> bool:
    return re.search(rb"^\s*(import|from)\s+torch\b", head, re.MULTILINE) is not None


KINDS = (
    FileKind("PyTorch module", (".py",), "network", _is_python),
    FileKind("Torch7 network", (".lua",), "network", _is_lua),
)
