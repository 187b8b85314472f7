"""The page of a comparison, as text, and the type of the fixture that writes runs to compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Write = Callable[..., Path]


def page_of(comparison: Any, folder: Path) -> str:
    return comparison.to_html(folder / "page.html").read_text(encoding="utf-8")
