"""Torch7 objects, read from a Lua or a .t7 file: a type name and fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from multiseg.errors import ModelError


class Problem(ModelError):
    """An error in an object; the message gives its position in the file, without the file's name."""


@dataclass(eq=False)
class Object:
    """A torch object, or a plain table (``type`` None). Keys are those of Lua: strings, and numbers from 1."""

    type: str | None
    fields: dict[Any, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Class name without its package: cudnn's modules are treated as nn's."""
        return (self.type or "table").rpartition(".")[2]

    @property
    def place(self) -> str:
        """Type of the object and, if known, the line that created it."""
        line = self.fields.get("line")
        return f"line {line}: {self.type}" if line else str(self.type)

    def listed(self) -> list[Any]:
        """Return the values at 1, 2, ... of a table."""
        values, index = [], 1
        while index in self.fields:
            values.append(self.fields[index])
            index += 1
        return values

    def number(self, name: str | int, default: float | None = None) -> float:
        """Return a numeric field, or ``default`` if it is missing. Raise Problem if it is not a number."""
        value = self.fields.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Problem(f"{self.place}: its {name} is {_brief(value)}; it must be a number")
        return value

    def whole(self, name: str | int, default: int | None = None) -> int:
        """Return an integer field, or ``default`` if it is missing. Raise Problem if it is not an integer."""
        value = self.number(name, default)
        if value != value or abs(value) > 2**31 or value != int(value):
            raise Problem(f"{self.place}: its {name} is {value}; it must be a whole number")
        return int(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean field, or ``default`` if it is missing."""
        value = self.fields.get(name)
        return default if value is None else bool(value)

    def has(self, name: str) -> bool:
        """Return whether a field is neither nil nor false."""
        return self.fields.get(name) not in (None, False) if not self.array(name) else True

    def array(self, name: str) -> bool:
        """Return whether a field is an array."""
        return isinstance(self.fields.get(name), np.ndarray)

    def wholes(self, name: str) -> list[int]:
        """Return a field (table or storage) as a list of integers. Raise Problem if it is not one."""
        value = self.fields.get(name)
        values = (
            value.listed() if isinstance(value, Object) else value.ravel() if isinstance(value, np.ndarray) else None
        )
        if values is None or any(isinstance(each, bool) or not _is_whole(each) for each in values):
            raise Problem(f"{self.place}: its {name} is {_brief(value)}; it must be a list of whole numbers")
        return [int(each) for each in values]

    def modules(self, name: str = "modules") -> list[Object]:
        """Return a container's modules. Raise Problem if an entry is not a module."""
        value = self.fields.get(name)
        if not isinstance(value, Object):
            raise Problem(f"{self.place}: has no {name}")
        children = value.listed()
        for child in children:
            if not isinstance(child, Object) or child.type is None:
                raise Problem(f"{self.place}: holds {_brief(child)} where a module is needed")
        return children


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and abs(value) < 2**62 and value == int(value)


def _brief(value: Any) -> str:
    if isinstance(value, Object):
        return f"a {value.type or 'table'}"
    if isinstance(value, np.ndarray):
        return f"an array of {value.shape}"
    return "nil" if value is None else repr(value)[:60]
