"""Events of a training, printed for programs."""

from __future__ import annotations

from typing import Any

import click

from multiseg.files import json_text


def print_json(event: dict[str, Any]) -> None:
    """Print an event as one line of JSON; numbers that are not finite become null."""
    click.echo(json_text(event, indent=None))
