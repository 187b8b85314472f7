"""The folder that the imports of a Python network file start from, and the file of a module."""

from __future__ import annotations

import ast
import sys
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from multiseg.files import read_bytes
from multiseg.model_files.imports import helpers

LEVELS = 4  # folders above the file in which imported packages are looked for


def root_of(file: Path) -> Path:
    """Return the folder from which a network file imports: its own, or that of the repository which contains it.

    It is a folder above if the file, or one beside it that it imports, needs that: where the chain of packages (``__init__.py``)
    begins if there are relative imports from above the folder, or the nearest folder that contains a module which is imported
    by name and which neither the own folder nor an installed package provides.
    """
    resolved = file.resolve()
    parents = list(resolved.parents)
    names, level = dict[str, None](), 0
    for source in [resolved, *(other for other in helpers(resolved) if other.parent == resolved.parent)]:
        absolute, dots = _imports(source)
        names.update(dict.fromkeys(absolute))
        level = max(level, dots)
    packages = 0
    while packages < len(parents) and (parents[packages] / "__init__.py").is_file():
        packages += 1
    depth = max(level - 1, packages) if level > 1 else 0
    for name in names:
        if not _is_provided(name, parents[0]):
            depth = max(depth, next((n for n, folder in enumerate(parents[: LEVELS + 1]) if _holds(folder, name)), 0))
    return file.parent if not depth else parents[min(depth, len(parents) - 1)]


def module_file(module: Path) -> tuple[Path, Path] | None:
    """Return file and root of ``FOLDER/package.module``: below that folder, else where Python imports from; None without one.

    Nothing is imported.
    """
    parts = module.name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for folder in (module.parent, *(Path(place) for place in sys.path if place)):
        base = folder.joinpath(*parts)
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                return file, folder
    return None


def _imports(file: Path) -> tuple[list[str], int]:
    """Return the top-level names that a file imports, and the largest number of dots of its relative imports."""
    try:
        tree = ast.parse(read_bytes(file))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return [], 0
    names, level = dict[str, None](), 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update((alias.name.partition(".")[0], None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            level = max(level, node.level)
            if not node.level and node.module:
                names[node.module.partition(".")[0]] = None
    return list(names), level


def _is_provided(name: str, folder: Path) -> bool:
    """Return whether the file's own folder, or an installed package, provides a module."""
    return _holds(folder, name) or name in sys.stdlib_module_names or _is_installed(name)


@cache
def _is_installed(name: str) -> bool:
    return PathFinder.find_spec(name, [place for place in sys.path if is_of_packages(Path(place))]) is not None


def is_of_packages(file: Path) -> bool:
    """Return whether a file or folder belongs to installed packages."""
    return any(part in ("site-packages", "dist-packages") for part in file.parts)


def _holds(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()
