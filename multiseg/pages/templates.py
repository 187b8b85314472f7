"""Load the templates of pages."""

from __future__ import annotations

import jinja2


def environment(package: str) -> jinja2.Environment:
    """Return a Jinja environment for the templates in a package's folder. Values are escaped; missing values raise errors."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
