"""Read Torch7's .t7 files, binary and ASCII, without Torch7. Nothing in them is executed: functions are skipped.

The format is defined by torch7's File.lua (types, references, classes), generic/Tensor.c and generic/Storage.c (payload), and
lib/TH/THDiskFile.c (how numbers are written); 64-bit little-endian files, as torch.save writes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.errors import ModelError
from multiseg.files import read_bytes
from multiseg_torch.torch7.objects import Object, Problem

NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN, OLD_FUNCTION, LEGACY_FUNCTION, FUNCTION = range(9)
ELEMENTS = {
    "": "<f4", "Float": "<f4", "Double": "<f8", "Half": "<f2", "Byte": "u1", "Char": "i1", "Short": "<i2", "Int": "<i4",
    "Long": "<i8",
}  # fmt: skip
CLASS = re.compile(r"torch\.(Cuda)?(Float|Double|Half|Byte|Char|Short|Int|Long|)(Tensor|Storage)")
LONGEST_WORD = 40  # characters of a number in an ASCII file
DEEPEST = 30_000  # steps of reading at one time; each table or object takes two or three
LARGEST_VIEW = 1 << 28  # elements that a tensor may have beyond those of its storage, by strides of 0

Array = npt.NDArray[Any]


def read(path: str) -> Any:
    """Return the file's root object: None, number, str, bool, array or Object. Raise ModelError, naming the file, if invalid."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    source = _Ascii(data) if re.match(rb"\s*\d{1,2}\n", data) else _Binary(data)
    try:
        return _Reader(source).read()
    except Problem as error:
        raise ModelError(f"{path}: is not a valid .t7 file: {error} (at byte {source.at} of {len(data)})") from error


class _Binary:
    """Reader of consecutive little-endian numbers."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size < 0 or size > len(self.data) - self.at:
            raise Problem(f"{size} bytes are needed, {len(self.data) - self.at} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def array(self, dtype: str, count: int) -> Array:
        size = np.dtype(dtype).itemsize
        if count < 0 or count > (len(self.data) - self.at) // size:
            raise Problem(f"{count} numbers of {size} bytes are needed, {len(self.data) - self.at} bytes are left")
        self.at += count * size
        return np.frombuffer(self.data, dtype, count, self.at - count * size)

    def integer(self) -> int:
        return int.from_bytes(self.take(4), "little", signed=True)

    def double(self) -> float:
        return float(self.array("<f8", 1)[0])


class _Ascii(_Binary):
    """Reader of numbers as whitespace-separated text and of raw characters; skips one newline after each item."""

    WORD = re.compile(rb"\s*(\S{1,%d})(?=\s|$)" % LONGEST_WORD)

    def word(self) -> bytes:
        match = self.WORD.match(self.data, self.at)
        if not match:
            raise Problem("a number is needed")
        self.at = match.end()
        return match[1]

    def skip_newline(self) -> None:
        self.at += self.data[self.at : self.at + 1] == b"\n"

    def take(self, size: int) -> bytes:
        taken = super().take(size)
        if size:
            self.skip_newline()
        return taken

    def array(self, dtype: str, count: int) -> Array:
        if np.dtype(dtype).itemsize == 1:  # bytes are written as they are
            return np.frombuffer(self.take(count), dtype)
        if count < 0 or count > len(self.data) - self.at:
            raise Problem(f"{count} numbers are needed, {len(self.data) - self.at} bytes are left")
        end = self.data.find(b"\n", self.at, self.at + LONGEST_WORD * (count + 1))
        words = self.data[self.at : end].split() if end > 0 else []
        if len(words) == count and count:  # as torch.save writes them: on one line
            self.at = end
        else:
            words = [self.word() for _ in range(count)]
        kind = int if np.dtype(dtype).kind == "i" else float
        try:
            values = np.array([kind(word) for word in words], dtype)
        except (ValueError, OverflowError) as error:
            raise Problem(f"is not a number: {error}") from error
        if count:
            self.skip_newline()
        return values

    def integer(self) -> int:
        return int(self.array("<i4", 1)[0])


Steps = Generator[
    "Steps", Any, Any
]  # of reading an object: it yields the reading of the objects within, and receives them


class _Reader:
    """Reader of objects: an object is stored once and referred to by its index afterwards.

    nngraph's graphs nest their nodes thousands of levels deep, so objects are read without recursion.
    """

    def __init__(self, source: _Binary) -> None:
        self.source = source
        self.objects: dict[int, Any] = {}

    def read(self) -> Any:
        """Return the next object."""
        waiting: list[Steps] = [self.object()]
        value = None
        while waiting:
            if len(waiting) > DEEPEST:
                raise Problem("its tables nest too deeply")
            try:
                waiting.append(waiting[-1].send(value))
                value = None
            except StopIteration as end:
                waiting.pop()
                value = end.value
        return value

    def object(self) -> Steps:
        kind = self.source.integer()
        if kind == NIL:
            return None
        if kind == NUMBER:
            value = self.source.double()
            return int(value) if value.is_integer() else value
        if kind == BOOLEAN:
            return self.source.integer() == 1
        if kind == STRING:
            return self.string()
        if kind == OLD_FUNCTION:
            return (yield self.function())
        if kind not in (TABLE, TORCH, FUNCTION, LEGACY_FUNCTION):
            raise Problem(f"{kind} is not an object type")
        index = self.source.integer()
        if index in self.objects:
            return self.objects[index]
        if kind == TABLE:
            return (yield self.table(self.objects.setdefault(index, Object(None))))
        if kind == TORCH:
            return (yield self.torch(index))
        self.objects[index] = Object("function")
        return (yield self.function())

    def string(self) -> str:
        return self.source.take(self.source.integer()).decode("latin-1")

    def function(self) -> Steps:
        """Skip Lua bytecode and its upvalues."""
        self.source.take(self.source.integer())
        yield self.object()
        return Object("function")

    def table(self, table: Object) -> Steps:
        for _ in range(self.source.integer()):
            key = yield self.object()
            value = yield self.object()
            if isinstance(key, (str, int, float)):
                table.fields[key] = value
        return table

    def torch(self, index: int) -> Steps:
        version = self.string()
        name = self.string() if re.fullmatch(r"V -?\d+", version) else version  # older files have no version
        found = CLASS.fullmatch(name)
        if found:
            value = (yield self.tensor()) if found[3] == "Tensor" else self.storage(ELEMENTS[found[2]])
            return self.objects.setdefault(index, value)
        if not re.fullmatch(r"[A-Za-z_][\w.]{0,99}", name):
            raise Problem(f"{name[:40]!r} is not a class name")
        if name.startswith("torch."):
            raise Problem(f"holds a {name}, which is not supported")
        made = self.objects.setdefault(index, Object(name))
        content = yield self.object()
        if not isinstance(content, Object) or content is made:
            raise Problem(f"a {name} has no fields")
        made.fields = content.fields
        return made

    def storage(self, dtype: str) -> Array:
        return self.source.array(dtype, int(self.source.array("<i8", 1)[0]))

    def tensor(self) -> Steps:
        axes = self.source.integer()
        if not 0 <= axes <= 32:
            raise Problem(f"a tensor has {axes} dimensions")
        sizes, strides = (self.source.array("<i8", axes).tolist() for _ in range(2))
        first = int(self.source.array("<i8", 1)[0]) - 1
        values = yield self.object()
        if values is None or not axes:
            return np.zeros(0, np.float32)
        elements = math.prod(sizes)
        if not isinstance(values, np.ndarray) or values.ndim != 1 or min(sizes) < 0 or min(strides) < 0 or first < 0:
            raise Problem(f"a tensor of {sizes}, strides {strides}, has no storage that fits")
        if not elements:
            return np.zeros(sizes, values.dtype)
        last = first + sum((size - 1) * stride for size, stride in zip(sizes, strides))
        if last >= len(values) or elements > max(len(values), LARGEST_VIEW):
            raise Problem(f"a tensor of {sizes}, strides {strides}, is larger than its storage of {len(values)}")
        steps = [stride * values.itemsize if size > 1 else 0 for size, stride in zip(sizes, strides)]  # others are free
        return np.lib.stride_tricks.as_strided(values[first:], sizes, steps, writeable=False)
