"""PyTorch's and Torch7's kinds of files, told by their content."""

from __future__ import annotations

import re
from pathlib import Path

from multiseg.backend import FileKind


def is_lua(head: bytes, path: Path) -> bool:
    """Lua's statements, and none of Python's; or Lua's bytecode, to be refused by name."""
    lua = rb"^\s*(local\s|return\s+function\b|require\b|function\s)|\bnn\.\w+\s*\(|^\s*--"
    python = rb"^\s*(import\s|from\s+\S+\s+import\b|class\s+\w+.*:|def\s+\w+\()"
    if head.startswith(b"\x1bLua"):
        return True
    return b"\0" not in head and bool(re.search(lua, head, re.MULTILINE)) and not re.search(python, head, re.MULTILINE)


def is_python(head: bytes, path: Path) -> bool:
    """A module that imports torch or torchvision."""
    return re.search(rb"^\s*(import|from)\s+torch(vision)?\b", head, re.MULTILINE) is not None


def is_t7(head: bytes, path: Path) -> bool:
    """A torch object or a table, its number, and a class's version or a table's size: in binary or in ASCII."""
    binary = rb"\x04\0\0\0....(\x03\0\0\0V \d|[\x06-\x40]\0\0\0\w+\.\w)|\x03\0\0\0\x01\0\0\0....[\x01-\x08]\0\0\0"
    ascii = rb"\s*4\n\d+\n\d+\n(V \d|\w+\.\w)|\s*3\n1\n\d+\n[1-8]\n"
    return re.match(binary, head, re.DOTALL) is not None or re.match(ascii, head) is not None


def is_t7_network(head: bytes, path: Path) -> bool:
    """A .t7 file with a module of nn near its beginning."""
    return is_t7(head, path) and re.search(rb"\b(nn|cudnn)\.[A-Z]\w+", head) is not None


def is_state(head: bytes, path: Path) -> bool:
    """What torch.save writes (a zip with data.pkl in it), or a pickle, which the reader refuses in clear words."""
    zipped = head.startswith(b"PK\x03\x04") and b"data.pkl" in head[:4096]
    return zipped or re.match(rb"\x80[\x02-\x05]", head) is not None


KINDS = (
    FileKind("PyTorch module", (".py",), "network", is_python),
    FileKind("Torch7 network", (".lua",), "network", is_lua),
    FileKind("Torch7 model", (".t7",), "network", is_t7_network),
    FileKind("PyTorch weights", (".pt", ".pth"), "weights", is_state),
    FileKind("Torch7 weights", (".t7",), "weights", is_t7),
)
