"""The page of watched runs, as one HTML text."""

from __future__ import annotations

import base64
from importlib.resources import files
from pathlib import Path
from typing import Any

from multiseg._version import __version__
from multiseg.files import read_bytes
from multiseg.pages import templates
from multiseg.run.names import PICTURES
from multiseg.watch.watcher import Watcher

RELOAD_SECONDS = 5  # of a page without a server, while a run trains
KINDS = ("input", "target", "output")


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


def with_pictures(state: dict[str, Any], watcher: Watcher) -> dict[str, Any]:
    """Return the state with the pictures of all runs as data URIs, for a page without a server."""
    return state | {
        "pictures": {str(record["id"]): _embedded(watcher.folder(record["id"])) for record in state["runs"]}
    }


def _embedded(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return {}
    try:
        return {
            path.name: f"data:image/png;base64,{base64.b64encode(read_bytes(path)).decode('ascii')}"
            for path in sorted((folder / PICTURES).glob("[0-9]-*.png"))
        }
    except OSError:
        return {}


def _asset(name: str) -> str:
    packages = {"page.css": "multiseg.pages", "watch.css": "multiseg.watch", "watch.js": "multiseg.watch"}
    return files(packages.get(name, "multiseg.report")).joinpath(name).read_text(encoding="utf-8")
