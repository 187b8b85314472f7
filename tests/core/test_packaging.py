"""The list of packages in pyproject.toml holds all of them: one that it lacks is missing from the wheel."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = {
        ".".join(file.parent.relative_to(ROOT / source).parts)
        for source in (".", "backends", "models")
        for file in (ROOT / source).glob("multiseg*/**/__init__.py")
    }
    assert set(listed) == packages and len(listed) == len(packages)
