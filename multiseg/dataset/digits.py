"""What a DIGITS job folder states about its labels, read from its status.pickle without unpickling.

Unpickling a file can execute any code. Here the file's instructions are followed on plain values only: text, numbers, lists,
dicts and tuples. An object is a placeholder that holds its attributes; nothing is imported or called.
"""

from __future__ import annotations

import ast
import io
import pickletools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiseg.dataset.label_tables import Colour, default_colours
from multiseg.dataset.labels import Labels
from multiseg.errors import MultisegWarning
from multiseg.files import read_bytes
from multiseg.network import CLASSES

FILE = "status.pickle"
SEGMENTATION = "image-segmentation"  # DIGITS' name of "Images > Segmentation"
_IGNORE = 255  # as in the networks of DIGITS' tutorial; DIGITS' datasets do not state it
_MOST_BYTES = 1 << 26


@dataclass
class _Object:
    """An object of the pickle, which is not created; ``state`` has its attributes."""

    state: Any = None


@dataclass
class _Stack:
    """The stack and the memo of a pickle's instructions."""

    items: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        """Remove and return the items above the last mark."""
        start = self.marks.pop()
        items = self.items[start:]
        del self.items[start:]
        return items

    def add_to_list(self, items: list[Any]) -> None:
        if isinstance(self.items[-1], list):
            self.items[-1].extend(items)

    def add_to_dict(self, items: list[Any]) -> None:
        if isinstance(self.items[-1], dict):
            self.items[-1].update(_entries(items))


def read_labels(folder: Path) -> Labels | None:
    """Return the labels of a folder of DIGITS' "Images > Segmentation": class indices, with its names and colours if it has any.

    None for any other folder. A file that cannot be read is a MultisegWarning.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"has {path.stat().st_size} bytes, more than {_MOST_BYTES}")
        attributes = parse(read_bytes(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        problem = MultisegWarning(
            f"{path}: cannot be read ({error}); whether its labels are classes, and their names, is not known"
        )
        warnings.warn(problem, stacklevel=3)
        return None
    if attributes.get("extension_id") != SEGMENTATION:
        return None
    stated = attributes.get("extension_userdata")
    userdata: dict[Any, Any] = stated if isinstance(stated, dict) else {}
    names = _names(userdata.get("class_labels"))
    colours = _colours(userdata.get("color_palette"))
    if names:
        colours = colours[: len(names)]
        others = (colour for colour in default_colours(2 * len(names)) if colour not in colours)
        colours += [next(others) for _ in range(len(names) - len(colours))]
    return Labels(CLASSES, tuple(names), tuple(colours), _IGNORE if len(names) <= _IGNORE else None)


def parse(data: bytes) -> dict[Any, Any]:
    """Return the attributes of the object in a pickle; other objects within have none of their methods, see _Object.

    Raises ValueError, KeyError, IndexError or TypeError if the bytes are not a pickle.
    """
    stack = _Stack()
    for name, argument in _instructions(data):
        if name == "STOP":
            break
        _follow(name, argument, stack)
    else:
        raise ValueError("its end is missing")
    result = stack.items.pop()
    return result.state if isinstance(result, _Object) and isinstance(result.state, dict) else {}


def _instructions(data: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the name and the argument of each instruction."""
    stream = io.BytesIO(data)
    while code := stream.read(1):
        instruction = _INSTRUCTIONS[code.decode("latin-1")]
        if instruction.name == "STRING":  # Python 2 writes bytes; pickletools reads only ASCII
            yield "STRING", _text(_literal(stream.readline()))
        else:
            argument: Any = None if instruction.arg is None else instruction.arg.reader(stream)
            if instruction.name in ("BINSTRING", "SHORT_BINSTRING"):
                argument = _text(argument.encode("latin-1"))
            yield instruction.name, argument


def _literal(line: bytes) -> bytes:
    """Return the bytes of a quoted text. Raises ValueError if it is damaged."""
    try:
        value = ast.literal_eval("b" + line.decode("ascii").strip())
    except SyntaxError as error:
        raise ValueError("a text in it is damaged") from error
    if not isinstance(value, bytes):
        raise ValueError("a text in it is damaged")
    return value


def _follow(name: str, argument: Any, stack: _Stack) -> None:
    """Carry out one instruction on plain values."""
    items = stack.items
    if name in _VALUES:
        items.append(argument)
    elif name in _CONSTANTS:
        items.append(_CONSTANTS[name])
    elif name in _EMPTY:
        items.append(_EMPTY[name]())
    elif name == "MARK":
        stack.marks.append(len(items))
    elif name in _FROM_MARK:
        items.append(_FROM_MARK[name](stack.since_mark()))
    elif name in _TUPLES:
        items.append(tuple(reversed([items.pop() for _ in range(_TUPLES[name])])))
    elif name == "APPEND":
        stack.add_to_list([items.pop()])
    elif name == "APPENDS":
        stack.add_to_list(stack.since_mark())
    elif name == "SETITEM":
        value, key = items.pop(), items.pop()
        stack.add_to_dict([key, value])
    elif name == "SETITEMS":
        stack.add_to_dict(stack.since_mark())
    elif name == "ADDITEMS":
        stack.since_mark()
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        stack.memo[argument] = items[-1]
    elif name == "MEMOIZE":
        stack.memo[len(stack.memo)] = items[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        items.append(stack.memo[argument])
    elif name == "BUILD":
        state = items.pop()
        if isinstance(items[-1], _Object):
            items[-1].state = state
    elif name in _OBJECTS:
        for _ in range(_OBJECTS[name]):
            items.pop()
        items.append(_Object())
    elif name == "POP":
        items.pop()
    elif name == "POP_MARK":
        stack.since_mark()
    elif name == "DUP":
        items.append(items[-1])
    elif name not in ("PROTO", "FRAME"):
        raise ValueError(f"its instruction {name} is unknown")


def _entries(items: list[Any]) -> dict[str, Any]:
    """Return the dict of alternating keys and values; keys other than text are left out."""
    return {key: value for key, value in zip(items[::2], items[1::2], strict=False) if isinstance(key, str)}


_INSTRUCTIONS = {instruction.code: instruction for instruction in pickletools.opcodes}
_VALUES = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
)  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": _Object,
}
_FROM_MARK: dict[str, Callable[[list[Any]], Any]] = {
    "DICT": _entries, "LIST": list, "TUPLE": tuple, "INST": lambda _: _Object(), "OBJ": lambda _: _Object(),
    "FROZENSET": lambda _: _Object(),
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Instructions whose result is an object, and how many items they take from the stack.
_OBJECTS = {"GLOBAL": 0, "STACK_GLOBAL": 2, "REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "PERSID": 0, "BINPERSID": 1,
            "EXT1": 0, "EXT2": 0, "EXT4": 0}  # fmt: skip


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _names(stated: Any) -> list[str]:
    """Return the class names: those before the first blank line of the file that DIGITS kept."""
    names: list[str] = []
    for name in stated if isinstance(stated, list) else ():
        if not isinstance(name, str) or not name.strip():
            break
        names.append(name.strip())
    return names


def _colours(palette: Any) -> list[Colour]:
    """Return the colours of a list of red, green, blue, red, ..., without the zeros that DIGITS appends."""
    if not isinstance(palette, list) or not all(isinstance(value, int) and 0 <= value <= 255 for value in palette):
        return []
    colours: list[Colour] = [(palette[i], palette[i + 1], palette[i + 2]) for i in range(0, len(palette) - 2, 3)]
    while colours and colours[-1] == (0, 0, 0):
        colours.pop()
    return colours
