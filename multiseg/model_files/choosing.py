"""Which network is meant: a shipped one by its name, a file, ``FILE:NAME(ARGUMENTS)`` or ``package.module:NAME(...)``.

All commands and functions resolve what the user specifies with :func:`path_of`. A choice within a file becomes a small JSON file
(multiseg.worker.choice) that exists until this process ends, and of which a run keeps a copy.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from multiseg.backend import Backend
from multiseg.errors import ModelError, SettingsError, setting, show_as
from multiseg.files import write_text
from multiseg.files.scratch import folder_until_the_end
from multiseg.model_files import roots, shipped
from multiseg.model_files.kinds import kind_of
from multiseg.model_files.run_copy import is_of_run
from multiseg.worker import choice
from multiseg.worker.choice import Choice

WORD = re.compile(r"(?P<file>.+?):(?P<name>[A-Za-z_]\w*(?:\.\w+)*)(?P<arguments>\(.*\))?", re.DOTALL)


def path_of(
    model: str | Path, backend: Backend | None = None, classes: int | None = None, channels: int | None = None,
    options: Mapping[str, Any] | None = None, required: bool = False, outputs: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Return the path of a network file for what a user specifies; a choice within a file is written to a file of its own.

    ``outputs`` are the names of the outputs that the network is cut to (multiseg.topology.cutting), none for all of it.

    ``classes`` is the number of outputs of a network that is chosen by name, and of a file that leaves it open, such as those of
    DIGITS; with ``required`` a file that states its own is an error. ``backend`` and ``channels`` select the file of a name, see
    :func:`shipped.path_of`. ``options`` are variables that a Lua file reads.

    Raises SettingsError for options or classes of a file that takes none, and ModelError for invalid arguments.
    """
    path = _path_of(model, backend, classes, channels, options, required)
    return with_outputs(path, outputs) if outputs else path


def with_outputs(path: Path, outputs: Sequence[str]) -> Path:
    """Return a file of choices for a network file, or for the choice in it, that is cut to these outputs."""
    if isinstance(outputs, str) or not all(isinstance(name, str) and name for name in outputs):
        raise SettingsError(f"{setting('outputs', outputs)}: must be a list of names of layers, as in ['conv4_3']")
    known = choice.read(path)
    known = known if choice.is_choice(path) else replace(known, file=path.resolve(), root=path.resolve().parent)
    return _written(f"{path.stem}.json", replace(known, outputs=tuple(outputs)).to_json(), known.word)


def _path_of(
    model: str | Path, backend: Backend | None, classes: int | None, channels: int | None,
    options: Mapping[str, Any] | None, required: bool,
) -> Path:  # fmt: skip
    if shipped.find(model) is not None:
        if options:
            raise SettingsError(
                f"{setting('model_options', dict(options))}: {model} takes none; they are for Lua files"
            )
        return shipped.path_of(model, backend, classes, channels)
    file, root, name, arguments = split(model)
    if choice.is_choice(file):
        known = choice.read(file)
        is_open = classes is not None and known.classes is None and leaves_classes_open(known.file)
        return _written(file.name, replace(known, classes=classes).to_json(), known.word) if is_open else file
    if not _exists(file):
        before, colon, after = str(model).partition(":")
        if colon and _exists(Path(before)):
            raise SettingsError(f"{before}:{after}: is not of the form FILE:NAME or FILE:NAME(ARGUMENTS)")
        return Path(model)
    if is_of_run(file):
        return file
    if name is not None:
        choice.literal_arguments(f"{name}{arguments or '()'}")
    if options and file.suffix != ".lua":
        raise SettingsError(
            f"{setting('model_options', dict(options))}: are variables that a Lua file reads; specify arguments as "
            f"{file.name}:NAME(...)"
        )
    open_classes = classes is not None and leaves_classes_open(file)
    if required and classes is not None and not open_classes:
        raise SettingsError(
            f"{setting('classes', classes)}: {file} states its own number of classes; it can be specified for networks chosen by "
            "name, and for files that leave it open (num_output, params.nclasses, self.nclasses)"
        )
    if name is not None and roots.is_of_packages(file.resolve()):
        word = f"{file}:{name}{arguments or ''}"
        return _written(f"{name}.py", _importing(file.resolve(), root, name, arguments), word)
    if root is None:
        root = roots.root_of(file) if file.suffix == ".py" else file.parent
    if name is None and not options and not open_classes and root == file.parent:
        return file
    resolved = file.resolve()
    chosen = Choice(resolved, root.resolve(), name, arguments, dict(options or {}), classes if open_classes else None)
    return _written(_name(chosen), chosen.to_json(), chosen.word)


def split(model: str | Path) -> tuple[Path, Path | None, str | None, str | None]:
    """Return the file, name and arguments of ``FILE:NAME(ARGUMENTS)``, with the root of its imports if the word states it.

    All but the first are None for a plain file. A module, ``package.module``, is looked up in the folder that precedes it and
    then where Python imports from, which is the root.
    """
    text = str(model)
    match = None if _exists(Path(text)) else WORD.fullmatch(text)
    if match is None:
        return Path(text), None, None, None
    file, root = Path(match["file"]), None
    if not _exists(file):
        file, root = roots.module_file(file) or (file, None)
    return file, root, match["name"], match["arguments"]


def _importing(file: Path, root: Path | None, name: str, arguments: str | None) -> str:
    """Return the text of a PyTorch network file that calls a function, or makes an object of a class, of an installed package."""
    top = next(folder for folder in [root, *file.parents] if folder and not (folder / "__init__.py").is_file())
    parts = file.resolve().relative_to(top.resolve()).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return (
        f"import torch  # the network is a module of PyTorch\n\nimport {module}\n\n\n"
        f"def network(params):\n    return {module}.{name}{arguments or '()'}\n"
    )


def leaves_classes_open(file: Path) -> bool:
    """Return whether a network file takes the number of classes from outside, by its backend's ``open_classes``."""
    try:
        backend, _ = kind_of(file, "network")
    except ModelError:  # loading it reports this
        return False
    if backend.open_classes is None:
        return False
    module, _, function = backend.open_classes.partition(":")
    return bool(getattr(importlib.import_module(module), function)(str(file)))


def portable(path: Path) -> Path:
    """Return a file of choices whose root is its own folder, to be sent elsewhere with copies.named_parts."""
    chosen = choice.read(path)
    return _written(path.name, chosen.to_json(root="."), chosen.word)


def word_of(model: str | Path) -> str | None:
    """Return the absolute path with the choice, ``/folder/FILE:NAME(ARGUMENTS)``, of a file of choices; None for other files."""
    path = Path(model)
    return choice.read(path).word if choice.is_choice(path) else None


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # too long for a file name
        return False


def _name(chosen: Choice) -> str:
    """Return a file name that tells choices within a file apart for people; options and classes are in the content."""
    parts = [chosen.file.stem, *([chosen.name] if chosen.name else [])]
    return ".".join(parts) + ".json"


@cache
def _written(name: str, text: str, word: str) -> Path:
    """Return a new temporary file; messages show the ``word`` of the user for it."""
    folder = folder_until_the_end("network")
    write_text(folder / name, text)
    show_as(folder / name, word)
    return folder / name
