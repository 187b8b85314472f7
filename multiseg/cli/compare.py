"""``multiseg compare``: the comparison page, or its figures as JSON or Markdown."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from multiseg.errors import SettingsError
from multiseg.files import json_text


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Page (.html) to write.")
@click.option("--grid", type=click.Path(path_type=Path), help="Large image to test with every run, without resizing.")
@click.option("--dataset", type=click.Path(path_type=Path), help="Folder of the runs' dataset, if it was moved.")
@click.option("--images", default=24, show_default=True, help="Number of validation images on the page.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--markdown", is_flag=True, help="Print the figures as Markdown, for a comment in a review.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the figures as CSV, unrounded.")
@click.option("--latex", is_flag=True, help="Print the table of results as LaTeX (package booktabs).")
@click.option(
    "--pivot", metavar="COLUMN[:METRIC]",
    help="Print one metric by network and backend, with a column for each dataset, seed or backend, e.g. seed:iou.",
)  # fmt: skip
@click.option("--require", multiple=True, metavar="EXPR", help='Condition that every run must meet, e.g. "iou>=0.85".')
@click.option(
    "--max-gap", multiple=True, metavar="METRIC=VALUE", help="Largest difference between the runs, e.g. iou=0.02."
)
@click.option(
    "--within-seeds",
    type=float,
    metavar="FACTOR",
    help="Largest difference between backends at one seed, as a multiple of the difference between seeds of one backend, e.g. 1.",
)
@click.option(
    "--baseline", multiple=True, type=click.Path(path_type=Path), metavar="RUN",
    help="Earlier run that runs of the same backend and network are held against; may be repeated.",
)  # fmt: skip
@click.option(
    "--max-regression", multiple=True, metavar="METRIC=VALUE",
    help="How much worse than its baseline a run may be, e.g. iou=0.01; may be repeated.",
)  # fmt: skip
@click.pass_context
def compare(
    ctx: click.Context,
    runs: tuple[Path, ...],
    output: Path | None,
    grid: Path | None,
    dataset: Path | None,
    images: int,
    as_json: bool,
    markdown: bool,
    as_csv: bool,
    latex: bool,
    pivot: str | None,
    require: tuple[str, ...],
    max_gap: tuple[str, ...],
    within_seeds: float | None,
    baseline: tuple[Path, ...],
    max_regression: tuple[str, ...],
) -> None:
    """Compare trained RUNs side by side: one self-contained page with their figures, curves and pictures.

    Without -o and another format the figures are printed: as tables on a terminal, otherwise as Markdown. The exit status is 1
    if a condition of --require, --max-gap, --within-seeds or --max-regression is not met.
    """
    from multiseg.cli.compared import print_comparison, print_pivot
    from multiseg.report import compare as compare_runs
    from multiseg.report import tables
    from multiseg.report.markdown import table as table_as_markdown

    if sum((as_json, markdown, as_csv, latex)) > 1:
        raise click.UsageError("choose one of --json, --markdown, --csv and --latex")
    if pivot and as_json:
        raise click.UsageError("--pivot is printed as --markdown, --csv or --latex")
    comparison = compare_runs(runs, images=images, grid=grid, dataset=dataset)
    failures = comparison.check(
        require,
        dict(_limit(text, "--max-gap") for text in max_gap),
        within_seeds,
        baseline,
        dict(_limit(text, "--max-regression") for text in max_regression),
    )
    table = comparison.pivot(*pivot.split(":", 1)) if pivot else None
    if output is not None:
        comparison.to_html(output)
    for label, reason in comparison.left_out.items():
        click.echo(f"left out of the pictures: {label}: {reason}", err=True)
    if as_json:
        checked = {"failures": failures} if require or max_gap or within_seeds or max_regression else {}
        click.echo(json_text({**comparison.to_dict(), **checked}))
    elif latex:
        click.echo(tables.latex(table) if table else comparison.to_latex(), nl=False)
    elif as_csv:
        click.echo(tables.table_as_csv(table) if table else comparison.to_csv(), nl=False)
    elif table and not markdown and sys.stdout.isatty():
        print_pivot(table)
    elif table:
        click.echo(f"{table_as_markdown(table)}\n", nl=False)
    elif output is None and not markdown and sys.stdout.isatty():
        print_comparison(comparison)
    elif markdown or output is None:
        click.echo(comparison.to_markdown(), nl=False)
    else:
        click.echo(f"{comparison.headline}\n{output}")
    for failure in failures:
        click.echo(f"failed: {failure}", err=True)
    if failures:
        ctx.exit(1)


def _limit(text: str, option: str) -> tuple[str, float]:
    key, _, limit = text.partition("=")
    try:
        return key.strip(), float(limit)
    except ValueError:
        raise SettingsError(f"{option} {text!r} is not of the form metric=value, as in iou=0.02") from None
