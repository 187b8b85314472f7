"""The command line's notation of settings in errors: ``--weights FILE`` where Python's is ``weights='FILE'``."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping
from typing import Any

import click

from multiseg.errors import MultisegError, MultisegWarning, Reference, in_notation

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabulators and line ends

# what a command with these options offers in place of the argument
ALTERNATIVES = {
    "input_shape": "--input-shape C,H,W or --dataset DIR",
    "label_shape": "--dataset DIR",
}


def message(error: MultisegError | MultisegWarning, command: click.Command | None = None) -> str:
    """Return the message of an error or a warning with the options of a command, of the current one by default, for settings.

    What the command has no option for stays in Python's notation.
    """
    options = _options(command or click.get_current_context().command)
    return visible(in_notation(error.template, lambda reference: _spelled(reference, options)))


def visible(text: str) -> str:
    """Return a text for a terminal: control characters, which untrusted files may have in names, are shown as ``\\x1b``."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _options(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command by the names of settings: ``--solver-option``, which may be repeated, is solver_options."""
    found = {}
    for param in command.params:
        if isinstance(param, click.Option):
            name = max(param.opts, key=len).lstrip("-").replace("-", "_")
            found[name] = param
            if param.multiple:
                found[f"{name}s"] = param
    return found


def _spelled(reference: Reference, options: Mapping[str, click.Option]) -> str:
    option = options.get(reference.name)
    if "input_shape" in options and reference.name in ALTERNATIVES:
        return ALTERNATIVES[reference.name]
    if option is None:
        return str(reference)
    name = max(option.opts, key=len)
    if reference.value is None:
        return name
    try:
        value = ast.literal_eval(reference.value)
    except (ValueError, SyntaxError):  # an example, such as FILE
        return f"{name} {reference.value}"
    if reference.keys:
        return f"{name} {' '.join(map(shlex.quote, reference.keys))}={_word(value)}"
    if value is None or value in ([], ()):
        return f"no {name}"
    if isinstance(value, bool) and option.is_flag:
        return name if value else next(iter(option.secondary_opts), f"no {name}")
    if option.multiple:
        return " ".join(f"{name} {shlex.quote(text)}" for text in _items(value))
    return f"{name} {reference.value if isinstance(value, Mapping) else shlex.quote(_word(value))}"


def _items(value: Any) -> list[str]:
    """Return the words of an option that is repeated for each item."""
    if isinstance(value, Mapping):
        return [f"{key}={_word(item)}" for key, item in value.items()]
    return [_word(item) for item in value] if isinstance(value, (list, tuple)) else [_word(value)]


def _word(value: Any) -> str:
    """Return a value as it is written after an option: items separated by commas, true and false."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return ",".join(map(_word, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
