"""``multiseg train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--dataset", required=True, type=click.Path(path_type=Path), help="Dataset folder, ours or a DIGITS job's."
)
@click.option("--backend", default="torch", show_default=True, help="Framework to train in; see `multiseg backends`.")
@click.option(
    "--run", "folder", required=True, type=click.Path(path_type=Path), help="Folder for the run; must be new."
)
@click.option("--model", type=click.Path(path_type=Path), help="Network file.  [default: the backend's FCN]")
@click.option("--epochs", default=150, show_default=True)
@click.option("--recipe", default="tutorial", show_default=True, help="tutorial: each framework's own defaults.")
@click.option("--subtract-mean", default="pixel", show_default=True, help="pixel, image or none.")
@click.option("--learning-rate", type=float, help="Base learning rate.  [default: the backend's]")
@click.option(
    "--batch-size", type=int, help="Images a training step.  [default: the network file's, else the backend's]"
)
@click.option("--val-batch-size", type=int, help="Images a validation batch.  [default: likewise]")
@click.option("--solver", default="sgd", show_default=True, help="sgd, nesterov, adam.")
@click.option("--solver-option", multiple=True, metavar="NAME=VALUE", help="e.g. momentum=0.9; may be repeated.")
@click.option("--lr-policy", help="fixed, step, multistep, exp, inv, poly, sigmoid, linear.  [default: step 33 % 0.1]")
@click.option("--loss", help="l1, smooth_l1 or l2, mean over elements.  [default: the network file's own]")
@click.option("--seed", type=int, help="Seed of weights and batch order.  [default: drawn, and kept with the run]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", default=0, help="Threads of the backend.  [default: all cores]")
@click.option("--lowering/--no-lowering", default=True, help="Compute kernel = stride convolutions as one product.")
@click.option("--keep", default="best", show_default=True, help="Snapshots kept: last, best (and last), all.")
@click.option("--resume", is_flag=True, help="Go on from the run's last snapshot.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as one line of JSON.")
def train(
    dataset: Path, folder: Path, solver_option: tuple[str, ...], resume: bool, as_json: bool, **settings: Any
) -> None:
    """Train a network in one framework."""
    from multiseg.job import Job

    job = Job(dataset=dataset, solver_options=numbers(solver_option), **settings)
    run = job.train(folder, resume=resume, progress=print_json if as_json else True)
    if not as_json:
        row = run.history[-1]
        scores = f"; validation L1 {row['l1']:.4g}, IoU {row['iou']:.4f}" if row["l1"] is not None else ""
        click.echo(f"{run.path}: {run.title}, {row['epoch']} epochs{scores}")


def numbers(pairs: tuple[str, ...]) -> dict[str, float]:
    """NAME=VALUE pairs as numbers. Raises click.BadParameter for anything else."""
    result = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            result[name.strip()] = float(value)
        except ValueError:
            raise click.BadParameter(f"{pair!r} is not NAME=NUMBER", param_hint="--solver-option") from None
    return result


def print_json(event: dict[str, Any]) -> None:
    """One event, one line."""
    click.echo(json.dumps(event))
