"""The choice of a network within a file, in a small JSON file that stands in its place.

``FILE:NAME(ARGUMENTS)``, options of a Lua file and the number of classes are written to such a file by
multiseg.model_files.choosing. Whatever loads a network file calls :func:`read` first; a plain network file is a choice without
a name.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from multiseg.errors import ModelError, setting
from multiseg.files import read_bytes, read_json

KEY = "multiseg_network"  # the first key of the JSON object, whose value is the version of the format
HEAD = b'{"' + KEY.encode() + b'":'


@dataclass(frozen=True)
class Choice:
    """A network file, and what says which network in it is meant.

    ``root`` is the folder that imports of the file start from. ``name`` is that of a class or function in the file, ``arguments``
    the source of its arguments with parentheses, None without any. ``options`` are variables that a Lua file reads, by their
    names with dots. ``classes`` is the number of classes if the file leaves it open and it is known. ``outputs`` are the names of
    the outputs that the network is cut to, none for all of it.
    """

    file: Path
    root: Path
    name: Optional[str] = None  # noqa: UP045 - Python 3.9
    arguments: Optional[str] = None  # noqa: UP045
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: Optional[int] = None  # noqa: UP045
    outputs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name of the file, followed by the choice in it, as ``FILE:NAME(ARGUMENTS)``."""
        return self.file.name + self._within

    @property
    def word(self) -> str:
        """The path of the file, followed by the choice in it, as ``/folder/FILE:NAME(ARGUMENTS)``."""
        return str(self.file) + self._within

    @property
    def _within(self) -> str:
        return "" if self.name is None else f":{self.name}{self.arguments or ''}"

    def call_arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the named arguments. Raises ModelError if they are not Python literals."""
        return literal_arguments(f"{self.name}{self.arguments or '()'}")

    def to_json(self, root: Optional[str] = None) -> str:  # noqa: UP045
        """Return the content of the JSON file; ``root`` takes the place of the folder of the imports."""
        content = {
            KEY: 1,
            "root": str(self.root) if root is None else root,
            "file": self.file.relative_to(self.root).as_posix(),
            "name": self.name,
            "arguments": self.arguments,
            "options": dict(self.options),
            "classes": self.classes,
            **({"outputs": list(self.outputs)} if self.outputs else {}),
        }
        return json.dumps(content) + "\n"


def read(path: str | os.PathLike[str]) -> Choice:
    """Return the choice in a JSON file of this format, or that of a plain network file or folder."""
    file = Path(path)
    if not is_choice(file):
        return Choice(file, file.parent)
    try:
        content = read_json(file)
        root = Path(os.path.normpath(file.resolve().parent / content["root"]))
        return Choice(
            root / content["file"], root, content["name"], content["arguments"], content["options"], content["classes"],
            tuple(content.get("outputs", ())),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: is damaged; specify the network file again ({error})") from error


def is_choice(path: Path) -> bool:
    """Return whether a file is a JSON file of this format."""
    try:
        return read_bytes(path, len(HEAD)) == HEAD
    except OSError:
        return False


def reads_classes(file: Path) -> bool:
    """Return whether a source file reads DIGITS' number of classes, ``params.nclasses`` or ``self.nclasses``."""
    return re.search(rb"\bnclasses\b", read_bytes(file)) is not None


def lacks_classes(file: Path, classes: Optional[int]) -> str:  # noqa: UP045
    """Return what an error's message adds if a source file reads the number of classes without a default, and it is unknown.

    The networks that are chosen by name have a default, as in ``self.nclasses or 21``.
    """
    if classes is not None or not re.search(rb"""\bnclasses\b(?!['"\])]*\s+or\b)""", read_bytes(file)):
        return ""
    return f"; it reads nclasses, which is open: specify {setting('classes', example='N')}, or a dataset of classes"


def literal_arguments(call: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call, ``NAME(1, key='text')``. Raises ModelError unless all are Python literals."""
    try:
        node = ast.parse(call, mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ModelError(f"{call}: is not of the form NAME(1, key='text')") from error
    if not isinstance(node, ast.Call) or any(keyword.arg is None for keyword in node.keywords):
        raise ModelError(f"{call}: is not of the form NAME(1, key='text')")

    def value(argument: ast.expr) -> Any:
        if isinstance(argument, ast.Name) and argument.id in ("true", "false"):  # as in Lua
            return argument.id == "true"
        try:
            return ast.literal_eval(argument)
        except (ValueError, TypeError, RecursionError):
            source = ast.unparse(argument)
            raise ModelError(
                f"{call}: {source} is not a Python literal; arguments can be numbers, strings, True, False, None, lists, tuples "
                "and dicts"
            ) from None

    named = {str(keyword.arg): value(keyword.value) for keyword in node.keywords}
    return [value(argument) for argument in node.args], named


def as_words(path: Path, names: Iterable[str]) -> str:
    """Return words that each choose one of ``names`` in a file, with its path from the current folder if it is inside."""
    try:
        shown = path.resolve().relative_to(Path.cwd())
    except (ValueError, OSError):
        shown = path
    return ", ".join(f"{shown}:{name}" for name in names)
