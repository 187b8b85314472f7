"""Every error multiseg raises on purpose, and references to settings in their messages.

One tree, so that ``except multiseg.MultisegError`` catches them all. A message names the file, key or value at fault
and what to do about it. The command line turns any of them into one line and exit status 2.

Messages have a bounded length.

A message that names a setting is written with :func:`setting`, so that each interface shows it in its own notation::

    raise SettingsError(f"{setting('epochs', 0)}: must be a whole number from 1")

is ``epochs=0: must be ...`` in Python and ``--epochs 0: must be ...`` on the command line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

# around a reference in a template: Unicode noncharacters, which text that is meant for people does not contain
_BEGIN, _END = "\ufdd0", "\ufdd1"
_REFERENCE = re.compile(f"{_BEGIN}(.*?){_END}", re.DOTALL)
MOST_REFERENCES = 50
LONGEST_TEXT, LONGEST_VALUE = 4000, 500  # characters between two references in a message, and of the value in one
LONGEST_MESSAGE = MOST_REFERENCES * (LONGEST_TEXT + LONGEST_VALUE)  # characters of a message of any kind


@dataclass(frozen=True)
class Reference:
    """A setting in a message: its name, keys into its value, and the value there as Python source, None for the name alone."""

    name: str
    keys: Sequence[str] = ()
    value: str | None = None

    def __str__(self) -> str:
        """Return the notation of Python: ``name['key']=value``."""
        place = self.name + "".join(f"[{key!r}]" for key in self.keys)
        return place if self.value is None else f"{place}={self.value}"


def setting(name: str, *value: Any, keys: Sequence[str] = (), example: str | None = None) -> str:
    """Return a reference to a setting, or an argument, for the template of an error's message.

    With a ``value`` the setting has, or should have, that value; ``keys`` lead to it in a setting that is a mapping. ``example``
    stands in the place of a value, e.g. ``FILE``.
    """
    text = repr(value[0]) if value else example
    return _BEGIN + json.dumps(asdict(Reference(name, tuple(map(str, keys)), text))) + _END


_shown_paths: dict[str, str] = {}  # of temporary files, and what messages show in their place


def show_as(path: object, name: str) -> None:
    """Let messages show ``name``, which the user gave, in place of the path of a temporary file that was made for it."""
    _shown_paths[str(path)] = _with_names(name)


def _with_names(text: str) -> str:
    for path, name in _shown_paths.items():
        text = text.replace(path, name)
    return text


def shortened(text: str, most: int) -> str:
    """Return a text of at most about ``most`` characters: what is in the middle of a longer one is left out."""
    if len(text) <= most:
        return text
    head, tail = text[: most * 3 // 5], text[-(most * 2 // 5) :]
    return f"{head} ... ({len(text) - len(head) - len(tail)} characters left out) ... {tail}"


def _bounded(template: str) -> str:
    """Return a template whose text and whose values of settings are of bounded length: a damaged file may be quoted in them."""
    if len(template) <= LONGEST_TEXT:
        return template
    parts, text = [], ""
    for index, part in enumerate(_REFERENCE.split(template)):  # text and references in turn
        reference = _parsed(part) if index % 2 else None
        if reference is None:
            text += part
            continue
        value = None if reference.value is None else shortened(reference.value, LONGEST_VALUE)
        keys = tuple(shortened(key, LONGEST_VALUE) for key in reference.keys)
        short = json.dumps(asdict(replace(reference, keys=keys, value=value)))
        parts += [shortened(text, LONGEST_TEXT), _BEGIN + short + _END]
        text = ""
    parts.append(shortened(text, LONGEST_TEXT))
    if len(parts) > 2 * MOST_REFERENCES:  # of a damaged file that has the marks of references
        return shortened("".join(re.sub(f"[{_BEGIN}{_END}]", "", part) for part in parts), LONGEST_TEXT)
    return "".join(parts)


def _parsed(text: str) -> Reference | None:
    """Return a reference in a template; None for text of a damaged file that has the same marks."""
    try:
        reference = Reference(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None
    whole = (
        isinstance(reference.name, str)
        and isinstance(reference.value, (str, type(None)))
        and isinstance(reference.keys, (list, tuple))
        and all(isinstance(key, str) for key in reference.keys)
    )
    return reference if whole else None


def in_notation(template: str, notation: Callable[[Reference], str]) -> str:
    """Return a template with ``notation`` of each of its references."""

    def shown(match: re.Match[str]) -> str:
        reference = _parsed(match[1])
        return match[1] if reference is None else notation(reference)

    return _REFERENCE.sub(shown, template)


class MultisegError(Exception):
    """Base class of all errors that multiseg raises deliberately.

    str() shows the message in Python's notation. ``template`` is the message with references to settings, for other notations
    (:func:`in_notation`) and for the message of another error.
    """

    def __init__(self, message: object = "") -> None:
        self.template = _bounded(_with_names(str(getattr(message, "template", message))))
        super().__init__(in_notation(self.template, str))


class MultisegWarning(UserWarning):
    """Something suspicious that does not prevent a result. ``template`` is the message as in MultisegError."""

    def __init__(self, message: str) -> None:
        self.template = _bounded(_with_names(message))
        super().__init__(in_notation(self.template, str))


class SettingsError(MultisegError, ValueError):
    """A setting of a job or an argument of a call is invalid."""


class ImageError(MultisegError, ValueError):
    """An image file is missing, unreadable, or of an unsupported type."""


class DatasetError(MultisegError, ValueError):
    """A dataset, or the files it is created from, are missing or invalid."""


class ModelError(MultisegError, ValueError):
    """A network file is invalid, or the network does not accept its input."""


class RunError(MultisegError, ValueError):
    """A run folder is missing, incomplete, or in use."""


class TrainingError(MultisegError, RuntimeError):
    """Training cannot continue, e.g. because the loss became NaN."""


class TrainingStopped(MultisegError, KeyboardInterrupt):
    """Training was interrupted (Ctrl-C, SIGTERM) and saved a snapshot to resume from.

    ``signal`` is the number of the signal, or None.
    """

    def __init__(self, message: str, signal: int | None = None) -> None:
        super().__init__(message)
        self.signal = signal


class BackendUnavailable(MultisegError, ImportError):
    """A backend is unknown, or its framework cannot be loaded."""


class WorkerError(MultisegError, RuntimeError):
    """A backend's process died or could not be started."""


class ClusterError(MultisegError, RuntimeError):
    """A cluster cannot be reached, or has no worker that can run the job."""


class InstallError(MultisegError, RuntimeError):
    """A framework could not be built or installed."""
