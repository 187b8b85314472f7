"""Start a benchmark again with environment variables that libraries read when a process starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def restart_with(variables: Mapping[str, str]) -> None:
    """Start this script again, with the same arguments and these variables, unless it has them."""
    if not variables.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **variables})
