"""The page of watched runs, as one HTML text."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from multiseg._version import __version__
from multiseg.pages import templates
from multiseg.watch.pictures import Pictures

RELOAD_SECONDS = 5  # of a page without a server, while a run trains
MOST_LOG_BYTES = 1_000_000  # of all runs


def render(state: dict[str, Any], live: bool, nonce: str = "") -> str:
    """Return the page. With ``live`` it follows the server it comes from; otherwise it reloads itself while runs train."""
    environment = templates.environment("multiseg.watch")
    environment.globals["asset"] = _asset
    return environment.get_template("watch.html.j2").render(
        state=state,
        live=live,
        nonce=nonce,
        reload=RELOAD_SECONDS if state["active"] and not live else None,
        version=__version__,
    )


def for_file(state: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
    """Return the state for a page without a server: with the pictures of all runs, and as many last lines of logs as fit."""
    found, images = pictures.of({record["id"]: Path(record["path"]) for record in state["runs"]})
    most = MOST_LOG_BYTES // max(1, len(state["runs"]))
    runs = [record | {"log": _last(record["log"], most)} for record in state["runs"]]
    return state | {"runs": runs, "pictures": found, "images": images}


def _last(lines: Sequence[str], most: int) -> list[str]:
    """Return the last lines that have at most ``most`` bytes together."""
    kept: list[str] = []
    for line in reversed(lines):
        most -= len(line.encode(errors="replace"))
        if most < 0:
            break
        kept.insert(0, line)
    return kept


def _asset(name: str) -> str:
    packages = {"page.css": "multiseg.pages", "watch.css": "multiseg.watch", "watch.js": "multiseg.watch"}
    return files(packages.get(name, "multiseg.report")).joinpath(name).read_text(encoding="utf-8")
