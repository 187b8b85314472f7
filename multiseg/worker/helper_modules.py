"""Modules and data files beside a user's Python network file: import them, and record which ones it uses.

A network file may import modules and packages of its folder, also as its package (``from .blocks import Block``). The modules
of the network that is loaded last replace those of the network before, so that helpers of the same name in different folders
are never confused. Only the standard library and packages that are already imported take precedence over the folder.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, TypeVar

from multiseg.worker.choice import Choice

T = TypeVar("T")
PACKAGE = "multiseg_user"  # the package that consists of the modules in the network file's folder
FOREIGN = ("__pycache__", "site-packages", "dist-packages")  # folders whose files do not belong to a network file
# names of built-in and, from Python 3.10, of all standard modules
STANDARD = frozenset(getattr(sys, "stdlib_module_names", sys.builtin_module_names))


class _Loader(SourceFileLoader):
    """Loads a module with other built-in functions, such as another ``__import__``."""

    def __init__(self, name: str, path: str, builtins: Mapping[str, Any]) -> None:
        super().__init__(name, path)
        self.builtins = dict(builtins)

    def exec_module(self, module: ModuleType) -> None:
        """See importlib.abc.Loader."""
        vars(module)["__builtins__"] = self.builtins
        super().exec_module(module)


class _Finder:
    """Finds the modules in a folder, and records their names and files."""

    def __init__(self, folder: Path, own: Path, builtins: Mapping[str, Any] | None) -> None:
        self.folder = folder  # the root of imports
        self.own = own  # that of the network file, in the root or below it
        self.builtins = builtins
        self.names: list[str] = []
        self.files: dict[str, None] = {}

    def find_spec(
        self,
        name: str,
        path: Optional[Sequence[str]] = None,  # noqa: UP045 - Python 3.9
        target: Optional[ModuleType] = None,  # noqa: UP045
    ) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if path is None and name in STANDARD:
            return None
        if path is not None and name.rpartition(".")[0] not in (PACKAGE, *self.names):
            return None  # part of a package that is not in the folder, or was imported before
        places = [str(self.folder), str(self.own), *sys.path] if path is None else path
        spec = PathFinder.find_spec(name, [place for place in places if self.owns(place)], target)
        if spec is None or (spec.origin is None and path is None and _is_elsewhere(name, self)):
            return None  # a folder without __init__.py does not hide an installed package
        self.names.append(name)
        if spec.origin is not None and type(spec.loader) is SourceFileLoader:
            self.files[spec.origin] = None
            if self.builtins is not None:
                spec.loader = _Loader(name, spec.origin, self.builtins)
        return spec

    def owns(self, path: str) -> bool:
        """Return whether a file or folder is in the folder of the network file."""
        resolved = Path(path or ".").resolve()
        if resolved == self.folder:
            return True
        inside = self.folder in resolved.parents
        return inside and not set(FOREIGN).intersection(resolved.relative_to(self.folder).parts)


def _is_elsewhere(name: str, finder: _Finder) -> bool:
    places = [place for place in sys.path if not finder.owns(place)]
    spec = PathFinder.find_spec(name, places)
    return spec is not None and spec.origin is not None


class _Current:
    """The helpers of the network file that was loaded last."""

    finder: _Finder | None = None
    added: list[str]  # to the search path
    recording = False
    hooked = False
    opened: dict[str, None]


_current = _Current()


@contextmanager
def helpers(
    path: Path,
    builtins: Mapping[str, Any] | None = None,
    root: Optional[Path] = None,  # noqa: UP045
) -> Iterator[None]:
    """Make the modules in the folder of a network file importable, and record what the block reads there.

    ``root`` is a folder above that its imports start from.
    The modules remain importable afterwards, until this is called for another file. ``builtins`` replace the built-in functions
    of the modules. No ``__pycache__`` is written.
    """
    _forget()
    own = path.resolve().parent
    folder = own if root is None else root.resolve()
    finder = _Finder(folder, own, builtins)
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    _current.finder, _current.added, _current.opened = finder, [], {}
    search_path = list(sys.path)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    if not _current.hooked:
        sys.addaudithook(_note)
        _current.hooked = True
    _current.recording = True
    try:
        yield
    finally:
        _current.recording = False
        _current.added = [place for place in sys.path if place not in search_path]
        sys.dont_write_bytecode = writes


def in_folder_if_needed(path: Path, build: Callable[[], T]) -> T:
    """Return ``build()``; if it fails to open a relative path that exists beside the network file, run it in that folder."""
    try:
        return build()
    except FileNotFoundError as error:
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        folder = path.resolve().parent
        if not name or Path(name).is_absolute() or not (folder / name).exists():
            raise
        before = Path.cwd()
        os.chdir(folder)
        try:
            return build()
        finally:
            os.chdir(before)


def module_name(path: Path, root: Path) -> str:
    """Return the name under which a network file is imported within :func:`helpers`: that of a module below its root.

    A file in the root itself has a name of its own, as has one in a folder with the name of another package.
    """
    parts = path.resolve().relative_to(root.resolve()).with_suffix("").parts
    if len(parts) == 1:
        return f"{PACKAGE}.network"
    taken = parts[0] in STANDARD or parts[0] in sys.modules
    dotted = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return f"{PACKAGE}.{dotted}" if taken else dotted


def used(chosen: Choice) -> list[str]:
    """Return the files beside a network file that were read when it was loaded, relative to the root of its imports."""
    finder = _current.finder
    path, folder = chosen.file, chosen.root.resolve()
    if finder is None or finder.folder != folder:
        return []
    files = {Path(name).resolve() for name in (*finder.files, *_current.opened) if finder.owns(name)}
    files.discard(path.resolve())
    return sorted(file.relative_to(folder).as_posix() for file in files if file.is_file())


def _forget() -> None:
    """Remove the modules of the network file before, and what it added to the search path."""
    finder = _current.finder
    if finder is None:
        return
    for name in [*finder.names, PACKAGE, *(name for name in sys.modules if name.startswith(f"{PACKAGE}."))]:
        sys.modules.pop(name, None)
    if finder in sys.meta_path:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
    sys.path[:] = [place for place in sys.path if place not in _current.added]
    _current.finder = None
    importlib.invalidate_caches()


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    """Record a file that is opened for reading (an audit hook, which cannot be removed)."""
    if not _current.recording or event != "open":
        return
    name, _, flags = arguments
    if isinstance(name, (str, bytes)) and not flags & (os.O_WRONLY | os.O_RDWR):
        path = os.path.realpath(os.fsdecode(name))
        if f"{os.sep}__pycache__{os.sep}" in path:
            try:
                path = importlib.util.source_from_cache(path)
            except ValueError:
                return
        _current.opened[path] = None
