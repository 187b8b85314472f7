"""What pages with the drawing of a network have in common: templates, style, script, and the policy that guards them."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

import jinja2


def template(name: str) -> jinja2.Template:
    """Return a template of this package. Values are escaped; missing values raise errors."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("multiseg.topology", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def style() -> str:
    """Return the CSS of the drawing and the panel beside it."""
    return files("multiseg.topology").joinpath("graph.css").read_text(encoding="utf-8")


def script() -> str:
    """Return the script that shows the details of the box that is chosen."""
    return files("multiseg.topology").joinpath("graph.js").read_text(encoding="utf-8")


def policy(script: str) -> str:
    """Return a Content-Security-Policy under which a page runs this script alone and asks the network for nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
