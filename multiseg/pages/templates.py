"""The pages' templates."""

from __future__ import annotations

import jinja2


def environment(package: str) -> jinja2.Environment:
    """An environment for the templates in the folder of a package. Values are escaped; a missing one is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
