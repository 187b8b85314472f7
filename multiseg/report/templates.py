"""The pages' templates."""

from __future__ import annotations

import jinja2


def environment() -> jinja2.Environment:
    """Where the templates of this folder are found; what they are given is escaped, and must be there."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("multiseg", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
