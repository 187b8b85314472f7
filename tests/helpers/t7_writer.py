"""Writes .t7 files, from the format alone: torch7's serialization doc and File.lua. Independent of the reader."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

NAMES = {
    "f4": "Float",
    "f8": "Double",
    "f2": "Half",
    "u1": "Byte",
    "i1": "Char",
    "i2": "Short",
    "i4": "Int",
    "i8": "Long",
}


class Torch:
    """An object of a class, with fields."""

    def __init__(self, name: str, version: str | None = "V 1", **fields: Any) -> None:
        self.name, self.version, self.fields = name, version, fields


class Tensor:
    """A view of a storage: sizes, strides and offset (from 0) in elements."""

    def __init__(self, storage: Any, size: Any, stride: Any, offset: int = 0, name: str = "") -> None:
        self.storage, self.size, self.stride, self.offset, self.name = storage, list(size), list(stride), offset, name


class Function:
    """Lua bytecode with upvalues."""

    def __init__(self, code: bytes, upvalues: Any, kind: int = 8) -> None:
        self.code, self.upvalues, self.kind = code, upvalues, kind


def tensor(array: Any, name: str = "") -> Tensor:
    """A tensor over a storage of its own."""
    array = np.ascontiguousarray(array)
    return Tensor(array.ravel(), array.shape, [stride // array.itemsize for stride in array.strides], name=name)


class Writer:
    """Binary; or ASCII, in which items end with a line's end and characters are as they are."""

    def __init__(self, ascii: bool = False) -> None:
        self.out, self.ascii, self.numbers, self.kept = bytearray(), ascii, {}, []

    def integer(self, *values: int, code: str = "i") -> None:
        if self.ascii:
            self.out += " ".join(map(str, values)).encode() + b"\n" if values else b""
        else:
            self.out += struct.pack(f"<{len(values)}{code}", *values)

    def double(self, value: float) -> None:
        self.out += f"{value:.17g}\n".encode() if self.ascii else struct.pack("<d", value)

    def chars(self, text: bytes) -> None:
        self.integer(len(text))
        self.out += text + (b"\n" if self.ascii and text else b"")

    def array(self, values: np.ndarray) -> None:
        if not self.ascii:
            self.out += values.astype(values.dtype.newbyteorder("<")).tobytes()
        elif values.itemsize == 1:
            self.out += values.tobytes() + b"\n"
        else:
            self.out += " ".join(f"{value:.17g}" for value in values.tolist()).encode() + b"\n"

    def seen(self, kind: int, value: Any) -> bool:
        self.integer(kind)
        known = id(value) in self.numbers
        self.integer(self.numbers.setdefault(id(value), len(self.numbers) + 1))
        self.kept.append(value)
        return known

    def head(self, name: str, version: str | None) -> None:
        if version is not None:
            self.chars(version.encode())
        self.chars(name.encode())

    def write(self, value: Any) -> None:
        if value is None:
            self.integer(0)
        elif isinstance(value, bool):
            self.integer(5, int(value)) if not self.ascii else (self.integer(5), self.integer(int(value)))
        elif isinstance(value, (int, float)):
            self.integer(1)
            self.double(value)
        elif isinstance(value, str):
            self.integer(2)
            self.chars(value.encode("latin-1"))
        elif isinstance(value, (dict, list)):
            if not self.seen(3, value):
                pairs = value.items() if isinstance(value, dict) else enumerate(value, 1)
                self.integer(len(value))
                for key, item in pairs:
                    self.write(key)
                    self.write(item)
        elif isinstance(value, Function):
            if value.kind == 6:
                self.integer(6)
            elif self.seen(value.kind, value):
                return
            self.chars(value.code)
            self.write(value.upvalues)
        elif isinstance(value, np.ndarray):  # a storage
            if not self.seen(4, value):
                self.head(f"torch.{NAMES[value.dtype.str[1:]]}Storage", "V 1")
                self.integer(len(value), code="q")
                self.array(value)
        elif isinstance(value, Tensor):
            if not self.seen(4, value):
                self.head(value.name or f"torch.{NAMES[value.storage.dtype.str[1:]]}Tensor", "V 1")
                self.integer(len(value.size))
                self.integer(*value.size, code="q")
                self.integer(*value.stride, code="q")
                self.integer(value.offset + 1, code="q")
                self.write(value.storage)
        elif not self.seen(4, value):
            self.head(value.name, value.version)
            self.write(value.fields)


def t7(value: Any, ascii: bool = False) -> bytes:
    """The bytes of a .t7 file that holds ``value``."""
    writer = Writer(ascii)
    writer.write(value)
    return bytes(writer.out)
