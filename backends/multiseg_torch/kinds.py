"""File kinds of PyTorch and Torch7, detected from the content."""

from __future__ import annotations

import re
from pathlib import Path

from multiseg.backend import FileKind
from multiseg.files import read_bytes
from multiseg.worker.choice import reads_classes


def is_lua(head: bytes, path: Path) -> bool:
    """Return whether the file is Lua source (Lua statements, no Python ones) or Lua bytecode, which the reader rejects."""
    lua = rb"^(?:\xef\xbb\xbf)?[ \t]*(local\s|return\s+function\b|require\b|function\s)|\bnn\.\w+\s*\(|^[ \t]*--"
    python = rb"^(?:\xef\xbb\xbf)?[ \t]*(import\s|from\s+\S+\s+import\b|class\s+\w+.*:|def\s+\w+\()"
    if head.startswith(b"\x1bLua"):
        return True
    return b"\0" not in head and bool(re.search(lua, head, re.MULTILINE)) and not re.search(python, head, re.MULTILINE)


def is_python(head: bytes, path: Path) -> bool:
    """Return whether the file is a Python module that imports torch or torchvision, or has them from a file beside it.

    So does a file that has ``nn`` from ``from .parts import *`` and derives its classes from nn.Module.
    """
    if b"\0" in head:  # such as the sources in a TorchScript file
        return False
    imports_torch = re.compile(rb"^(?:\xef\xbb\xbf)?[ \t]*(import|from)\s+torch(vision)?\b", re.MULTILINE)
    if imports_torch.search(head):
        return True
    if re.search(rb"^[ \t]*class\s+\w+\s*\(.*\bnn\.(Module|Sequential)\b", head, re.MULTILINE):
        return True
    beside = re.findall(rb"^[ \t]*from\s+\.?(\w+)\s+import\s", head, re.MULTILINE)
    return any(imports_torch.search(_head(path.parent / f"{name.decode()}.py")) for name in dict.fromkeys(beside))


def _head(path: Path) -> bytes:
    """Return the start of a file; nothing if it is not a file."""
    try:
        return read_bytes(path, 1 << 16) if path.is_file() else b""
    except OSError:
        return b""


def is_t7(head: bytes, path: Path) -> bool:
    """Return whether the file starts with a serialised torch object (index, class version) or table (index, size).

    Both the binary and the ASCII format are recognised.
    """
    binary = rb"\x04\0\0\0....(\x03\0\0\0V \d|[\x06-\x40]\0\0\0\w+\.\w)|\x03\0\0\0\x01\0\0\0....[\x01-\x08]\0\0\0"
    ascii = rb"\s*4\n\d+\n\d+\n(V \d|\w+\.\w)|\s*3\n1\n\d+\n[1-8]\n"
    return re.match(binary, head, re.DOTALL) is not None or re.match(ascii, head) is not None


def is_t7_network(head: bytes, path: Path) -> bool:
    """Return whether the file is a .t7 file with an nn or cudnn module near its start."""
    return is_t7(head, path) and re.search(rb"\b(nn|cudnn)\.[A-Z]\w+", head) is not None


def is_state(head: bytes, path: Path) -> bool:
    """Return whether torch.save wrote the file (a zip that begins with data.pkl), or it is a pickle, which the reader rejects."""
    zipped = re.match(rb"PK\x03\x04.{26}[^/]+/data\.pkl", head, re.DOTALL) is not None
    return zipped or re.match(rb"\x80[\x02-\x05]", head) is not None


def is_program(head: bytes, path: Path) -> bool:
    """Return whether the file is of torch.jit.save or torch.export.save: a zip that begins with the weights' numbers."""
    return re.match(rb"PK\x03\x04.{26}[^/]+/(data/(weights/weight_)?\d|archive_format)", head, re.DOTALL) is not None


def leaves_classes_open(path: str) -> bool:
    """Return whether a network file reads DIGITS' number of classes, ``params.nclasses``."""
    file = Path(path)
    return file.suffix in (".lua", ".py") and reads_classes(file)


KINDS = (
    FileKind("PyTorch module", (".py",), "network", is_python),
    FileKind("Torch7 network", (".lua",), "network", is_lua),
    FileKind("Torch7 model", (".t7",), "network", is_t7_network),
    FileKind("PyTorch weights", (".pt", ".pth"), "weights", is_state),
    FileKind("Torch7 weights", (".t7",), "weights", is_t7),
    FileKind(
        "TorchScript or torch.export program",
        (".pt", ".pt2"),
        "program",
        is_program,
        instead="save its weights, as in torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt') or "
        "torch.save(torch.export.load(FILE).state_dict, 'weights.pt'), and name them with the Python file of its network",
    ),
)
