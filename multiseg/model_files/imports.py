"""Find the files beside a Python network file that it uses, from its source: imported modules, and data files that it names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from multiseg.files import read_bytes


def helpers(path: Path, root: Path | None = None) -> list[Path]:
    """Return the files in the folder of a Python network file that it imports or names, directly or in another, sorted.

    ``root`` is another folder that imports start from, which contains that of the file.

    These are modules and packages, and files whose path relative to the folder, or to the importing module's, is a string in the
    source. Files that are found only when the code runs are recorded then, see multiseg.worker.helper_modules. Source that cannot
    be parsed has no helpers: the backend reports its errors.
    """
    root = root or path.parent
    folders = [folder for folder in path.parents if root in folder.parents]  # packages that contain the file
    files = {folder / "__init__.py": None for folder in folders if (folder / "__init__.py").is_file()}
    files.pop(path, None)
    waiting = [path, *files]
    while waiting:
        source = waiting.pop()
        for file in _references(source, root, path.parent):
            if file != path and file not in files:
                files[file] = None
                waiting += [file] if file.suffix == ".py" else []
    return sorted(files)


def _references(source: Path, root: Path, folder: Path) -> Iterator[Path]:
    """Yield the files below ``root`` that a source imports from there or from ``folder``, or names."""
    try:
        tree = ast.parse(read_bytes(source))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                for place in dict.fromkeys((root, folder)):
                    yield from _module(place, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            relative = 0 < node.level <= len(source.parents)
            for place in (source.parents[node.level - 1],) if relative else dict.fromkeys((root, folder)):
                if place == root or root in place.parents:
                    yield from _module(place, parts)
                    for alias in node.names:
                        yield from _module(place, [*parts, alias.name])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _data(node.value, source.parent, root)


def _module(folder: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the files of a module and of the packages that contain it, as far as they exist."""
    for part in parts:
        if (folder / part / "__init__.py").is_file():
            yield folder / part / "__init__.py"
        elif (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
            return
        folder = folder / part
        if not folder.is_dir():
            return


def _data(text: str, *folders: Path) -> Iterator[Path]:
    if not 2 < len(text) < 200 or "\n" in text or "\0" in text or text.startswith("/"):
        return
    root = folders[-1].resolve()
    for folder in dict.fromkeys(folders):
        file = folder / text
        try:
            if file.is_file() and root in file.resolve().parents:
                yield folder / Path(text)
        except OSError:  # a text that is no path, e.g. too long
            continue
