"""``multiseg compare``: the page, or its figures for machines and reviews."""

from __future__ import annotations

import json
from pathlib import Path

import click

from multiseg.errors import SettingsError


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The page to write.")
@click.option("--grid", type=click.Path(path_type=Path), help="A large image to test on every run, unresized.")
@click.option("--images", default=24, show_default=True, help="Validation images on the page; 0 for none.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--markdown", is_flag=True, help="Print the figures as Markdown, for a comment in a review.")
@click.option("--require", multiple=True, metavar="EXPR", help='What each run must hold, e.g. "iou>=0.85".')
@click.option("--max-gap", multiple=True, metavar="METRIC=VALUE", help="How far the runs may lie apart, e.g. iou=0.02.")
@click.option(
    "--within-seeds",
    type=float,
    metavar="FACTOR",
    help="How far backends may lie apart at one seed, in multiples of what seeds of one backend differ by, e.g. 1.",
)
@click.pass_context
def compare(
    ctx: click.Context,
    runs: tuple[Path, ...],
    output: Path | None,
    grid: Path | None,
    images: int,
    as_json: bool,
    markdown: bool,
    require: tuple[str, ...],
    max_gap: tuple[str, ...],
    within_seeds: float | None,
) -> None:
    """Put trained RUNs side by side: one page that opens from disk, with their figures, curves and pictures.

    Without -o and --json it prints the figures as Markdown. Exits 1 where --require, --max-gap or --within-seeds does not
    hold.
    """
    from multiseg.report import compare as compare_runs

    if as_json and markdown:
        raise click.UsageError("choose one of --json and --markdown")
    comparison = compare_runs(runs, images=images, grid=grid)
    failures = comparison.check(require, dict(_gap(text) for text in max_gap), within_seeds)
    if output is not None:
        comparison.to_html(output)
    for label, reason in comparison.left_out.items():
        click.echo(f"left out of the pictures: {label}: {reason}", err=True)
    if as_json:
        checked = {"failures": failures} if require or max_gap or within_seeds else {}
        click.echo(json.dumps({**comparison.to_dict(), **checked}, indent=2, ensure_ascii=False, allow_nan=False))
    elif markdown or output is None:
        click.echo(comparison.to_markdown(), nl=False)
    else:
        click.echo(f"{comparison.headline}\n{output}")
    for failure in failures:
        click.echo(f"failed: {failure}", err=True)
    if failures:
        ctx.exit(1)


def _gap(text: str) -> tuple[str, float]:
    key, _, limit = text.partition("=")
    try:
        return key.strip(), float(limit)
    except ValueError:
        raise SettingsError(f"--max-gap {text!r} is not of the form metric=value, as in iou=0.02") from None
