"""``multiseg fuzz``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from multiseg.campaign import Campaign


@click.command()
@click.option("--networks", default=1000, show_default=True, help="Number of random networks.")
@click.option("--seed", default=1, show_default=True, help="Seed of the campaign.")
@click.option(
    "--first", default=0, show_default=True, help="Number of the first network, to repeat a part of a campaign."
)
@click.option("--backend", "backends", multiple=True, help="Backend to check; may be repeated.  [default: all]")
@click.option(
    "--no-reduce", is_flag=True, help="Do not reduce networks that differ to their smallest part that differs."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for outcomes, a page and reduced parts; that of an earlier call is continued.",
)
@click.pass_context
def fuzz(
    ctx: click.Context, networks: int, seed: int, first: int, backends: tuple[str, ...], no_reduce: bool,
    output: Path | None,
) -> None:  # fmt: skip
    """Check random networks in every backend against float64: layers, losses, gradients and steps of all solvers.

    A network follows from --seed and its number alone. A network that differs beyond rounding, an error and a crash of a backend
    are alarms: they are listed, and the exit status is 1. With -o, Ctrl-C keeps what was found, and the same command continues.
    """
    from rich.console import Console

    from multiseg import campaign

    errors = Console(stderr=True)
    with errors.status("") as status:

        def show(result: Campaign) -> None:
            last = result.outcomes.rows[-1].number + 1
            status.update(
                f"{last} of {networks} networks, {len(result.outcomes.alarms)} alarms, {result.rate:,.0f} checks/hour"
            )

        result = campaign.fuzz(
            networks, seed, list(backends) or None, output, first=first, reduce=not no_reduce, progress=show
        )
    _print(result)
    if output is not None:
        click.echo(output / campaign.PAGE)
    if result.interrupted:
        click.echo("interrupted" + ("" if output is None else "; the same command continues"), err=True)
        ctx.exit(130)
    if not result.ok:
        ctx.exit(1)


def _print(result: Campaign) -> None:
    from multiseg.campaign.outcome import VERDICTS

    for row in result.outcomes.alarms:
        click.echo(f"network {row.number}, {row.backend}: {row.verdict}: {row.words}")
        if row.part:
            alone = {True: ", the framework alone shows it", False: ", the framework alone agrees", None: ""}[row.alone]
            click.echo(f"    {row.part}: {', '.join(row.layers)}{alone}")
    for name in result.backends:
        counts = {verdict: result.count(name, verdict) for verdict in VERDICTS}
        click.echo(f"{name}: " + ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items() if count))
    comparisons = sum(row.comparisons for row in result.outcomes.rows)
    click.echo(
        f"{comparisons:,} comparisons; {result.checked:,} checks in {result.seconds:.0f} s, {result.rate:,.0f} per hour"
    )
