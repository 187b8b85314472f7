"""What belongs to the distribution: all packages are listed, and no module hides a framework."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from multiseg import backend as registry

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = {
        ".".join(file.parent.relative_to(ROOT / source).parts)
        for source in (".", "backends", "models")
        for file in (ROOT / source).glob("multiseg*/**/__init__.py")
    }
    assert set(listed) == packages and len(listed) == len(packages)


def test_no_module_has_the_name_of_a_framework() -> None:
    """Such a module would be imported in place of the framework by a program that runs in its folder."""
    folders = ("multiseg", "backends", "models", "tests", "examples", "benchmarks", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 500
    names = {*registry.names(), "keras", "numpy", "lmdb"}
    assert names > {"caffe", "torch", "tensorflow"}
    assert [
        path for path in files if path.stem in names or (path.stem == "__init__" and path.parent.name in names)
    ] == []


def test_few_modules_lie_outside_the_packages_of_concepts() -> None:
    modules = sorted(path.name for path in (ROOT / "multiseg").glob("*.py"))
    assert len(modules) <= 8, f"{modules}: move one into the package of its concept (docs/architecture.md)"
