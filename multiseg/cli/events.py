"""Events of a training, printed for programs."""

from __future__ import annotations

import json
import math
from typing import Any

import click


def print_json(event: dict[str, Any]) -> None:
    """Print an event as one line of JSON; numbers that are not finite become null."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in event.items()
    }
    click.echo(json.dumps(plain))
