"""The option ``--snapshot`` of the commands that use one snapshot of a run."""

from __future__ import annotations

import click

from multiseg.errors import SettingsError


def snapshot_of(text: str) -> str | float:
    """Return ``last``, ``best`` or the number of an epoch. Raise SettingsError for anything else."""
    if text in ("last", "best"):
        return text
    try:
        epoch = float(text)
    except ValueError:
        raise SettingsError(f"--snapshot {text!r}: choose last, best, or the number of an epoch, e.g. 1.5") from None
    return int(epoch) if epoch.is_integer() else epoch


SNAPSHOT = click.option(
    "--snapshot",
    default="last",
    show_default=True,
    metavar="last|best|N",
    callback=lambda ctx, param, value: snapshot_of(value),
    help="Snapshot of the run: last, best, or an epoch, which may be a fraction.",
)
