"""``multiseg train``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from multiseg.cli import ARGUMENTS
from multiseg.cli.events import print_json
from multiseg.cli.model import CLASSES, MODEL_OPTION, OUTPUTS, names_of, options_of
from multiseg.dataset.fitting import OF_DATASET
from multiseg.network import PRECISIONS
from multiseg.settings.losses import LOSSES
from multiseg.settings.metrics import DEFAULT as DEFAULT_METRIC
from multiseg.settings.metrics import IN_PROGRESS, SELECTING
from multiseg.settings.request import JobRequest
from multiseg.settings.schedules import DEFAULT

# options that decide a setting together, where they are not the one of its name
OPTIONS_OF = {
    "solver_options": {"solver", "solver_option"},
    "loss_options": {"loss", "loss_option"},
    "class_weights": {"loss", "class_weights"},
    "crop": {"crop", "val_crop"},
    "val_crop": {"crop", "val_crop"},
    "multipliers": {"multiplier"},
    "lr_policy": {"lr_policy", "lr_option"},
    "mean": {"mean", "subtract_mean"},
    "subtract_mean": {"mean", "subtract_mean"},
}


@click.command()
@click.argument("jobs", required=False, type=click.Path(path_type=Path))
@click.option("--dataset", metavar="PATH", help="Dataset folder, of multiseg or of a DIGITS job, or its URL.")
@click.option(
    "--backend", default=JobRequest.backend, show_default=True, help="Framework to train in; see `multiseg backends`."
)
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of the run; must not exist unless --resume is given.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Network file, FILE.py:NAME(ARGUMENTS), or a name of `multiseg models`.  [default: fcn]",
)
@CLASSES
@MODEL_OPTION
@OUTPUTS
@click.option("--epochs", default=JobRequest.epochs, show_default=True)
@click.option(
    "--recipe",
    default=JobRequest.recipe,
    show_default=True,
    help="tutorial (each framework's own defaults) or equal (the same for all).",
)
@click.option(
    "--subtract-mean",
    help="Mean to subtract from the inputs: pixel, image or none.  [default: the network file's mean_value, else pixel]",
)
@click.option("--mean", metavar="NUMBER,...", help="A mean of one's own, one number per channel; colours as B,G,R.")
@click.option(
    "--divide-std", metavar="NUMBER,...",
    help="Standard deviation to divide the inputs by, one number per channel, colours as B,G,R; or dataset, to compute it.",
)  # fmt: skip
@click.option("--learning-rate", type=float, help="Base learning rate.  [default: the recipe's]")
@click.option(
    "--batch-size", type=int, help="Images per training step.  [default: the network file's, else the backend's]"
)
@click.option(
    "--val-batch-size", type=int, help="Images per validation batch.  [default: the network file's, else the backend's]"
)
@click.option(
    "--solver",
    default=JobRequest.solver,
    show_default=True,
    help="sgd, nesterov, adagrad, rmsprop, adadelta, adam, ...",
)
@click.option(
    "--solver-option",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the solver, e.g. momentum=0.9; may be repeated.",
)
@click.option(
    "--multiplier", multiple=True, metavar="PARAMETER=LR[,DECAY]",
    help="Multiplier of the learning rate and of the weight decay, e.g. '*.bias=2,0'; may be repeated.",
)  # fmt: skip
@click.option(
    "--accumulate",
    default=JobRequest.accumulate,
    show_default=True,
    help="Number of batches whose gradients are averaged for one update.",
)
@click.option(
    "--lr-policy",
    help="Learning-rate policy: fixed, step, multistep, exp, inv, poly, sigmoid, linear.  [default: step, at 33 %, 0.1]",
)
@click.option(
    "--lr-option",
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter of the policy, e.g. gamma=0.5, stepvalues=50,85 or warmup=5 (percent).",
)
@click.option("--loss", help=f"{', '.join(LOSSES)} (docs/losses.md).  [default: the network file's own]")
@click.option("--loss-option", multiple=True, metavar="NAME=VALUE", help="A parameter of --loss; may be repeated.")
@click.option(
    "--class-weights", metavar="WEIGHTS",
    help="Weights of the classes in the loss: balanced, median_frequency, or a number for each, e.g. 1,2.5,10.",
)  # fmt: skip
@click.option("--ignore-index", type=int, help="Class index of pixels that do not count.  [default: the dataset's]")
@click.option(
    "--seed", type=int, help="Seed of the initial weights and the batch order.  [default: random, stored with the run]"
)
@click.option("--device", default=JobRequest.device, show_default=True, help="Device: auto, cpu or cuda.")
@click.option("--threads", default=JobRequest.threads, help="Number of threads of the backend.  [default: all cores]")
@click.option(
    "--data-workers", type=int, help="Processes that read and augment images.  [default: 0 on a CPU, up to 4 on a GPU]"
)
@click.option(
    "--image-cache", type=int, metavar="MB",
    help="Megabytes of memory for decoded images.  [default: a quarter of the available memory, at most 4000; 0 for one epoch]",
)  # fmt: skip
@click.option(
    "--lowering/--no-lowering",
    default=JobRequest.lowering,
    help="Compute convolutions whose kernel equals their stride as one matrix product.",
)
@click.option("--compile", is_flag=True, help="Compile the training step; the first training takes longer to start.")
@click.option(
    "--precision",
    default=JobRequest.precision,
    show_default=True,
    help=f"Precision of the training step: {' or '.join(PRECISIONS)}; weights are kept in float32.",
)
@click.option(
    "--val-interval",
    type=float,
    default=JobRequest.val_interval,
    show_default=True,
    help="Epochs between validations; may be a fraction, e.g. 0.5.",
)
@click.option(
    "--snapshot-interval",
    type=float,
    default=JobRequest.snapshot_interval,
    show_default=True,
    help="Epochs between snapshots; may be a fraction.",
)
@click.option(
    "--keep", default=JobRequest.keep, show_default=True, help="Snapshots to keep: last, best (and the last), or all."
)
@click.option(
    "--metric",
    help=f"Metric that selects the best validation: {', '.join(SELECTING)}.  "
    f"[default: {DEFAULT_METRIC}; val_loss if it is not defined]",
)
@click.option(
    "--threshold",
    type=float,
    help="Value between background and foreground.  [default: the dataset's, 128 for 0 to 255]",
)
@click.option("--patience", type=int, help="Stop after this number of validations without an improvement.")
@click.option(
    "--min-delta",
    type=float,
    default=JobRequest.min_delta,
    show_default=True,
    help="Smallest change that counts as an improvement.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="Run folder or weights file to start from.")
@click.option(
    "--solver-state/--no-solver-state", default=JobRequest.solver_state,
    help="Whether to continue with the state of that run's solver.  [default: if it has one]",
)  # fmt: skip
@click.option(
    "--freeze", multiple=True, metavar="LAYER", help="Name or pattern of layers that are not trained; may be repeated."
)
@click.option(
    "--augment", multiple=True, metavar="NAME=VALUE",
    help="Augmentation: flip=both, quarter_turns=true, rotation=10, scale=0.5,2, translation=0.1, brightness=0.2, "
    "contrast=0.2, saturation=0.2, noise=5; may be repeated.",
)  # fmt: skip
@click.option(
    "--crop", metavar="SIZE",
    help="Train on random crops: pixels, or HEIGHTxWIDTH, or none.  [default: the network file's crop_size, else none]",
)  # fmt: skip
@click.option(
    "--val-crop", metavar="centre|none", help="Validate on the central part of that size, or on whole images."
)
@click.option("--tensorboard", is_flag=True, help="Write a log for TensorBoard into the run folder.")
@click.option(
    "--page", type=click.Path(path_type=Path, dir_okay=False), metavar="PAGE.html",
    help="Keep a page of the training in this file, which reloads itself; see also `multiseg watch`.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Resume from the run's last snapshot, with its settings.")
@click.option(
    "--skip-damaged", is_flag=True,
    help="With --resume: continue from the newest snapshot without damage, and remove the damaged ones after it.",
)  # fmt: skip
@click.option(
    "--parallel", type=click.IntRange(min=1), help="With a file of JOBS: number of jobs at the same time, per worker."
)
@click.option(
    "--scheduler", metavar="ADDRESS",
    help="With a file of JOBS: train them on a Dask cluster, by its scheduler's address (tcp://..., tls://...) or file.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print each event as one line of JSON.")
@click.pass_context
def train(
    ctx: click.Context, /, jobs: Path | None, dataset: str | None, folder: Path | None, solver_option: tuple[str, ...],
    loss_option: tuple[str, ...], class_weights: str | None, multiplier: tuple[str, ...], mean: str | None,
    divide_std: str | None,
    lr_policy: str | None, lr_option: tuple[str, ...], augment: tuple[str, ...], model_option: tuple[str, ...],
    outputs: str | None, tensorboard: bool, page: Path | None, resume: bool, skip_damaged: bool,
    parallel: int | None, scheduler: str | None, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Train a network in one framework, or several of them, from a file of JOBS (TOML).

    Finished jobs of such a file are skipped, interrupted ones are resumed. The exit status is 1 if a job failed.
    """
    from multiseg.training.ranks import current

    ranks = current()
    if jobs is not None:
        from multiseg.cli.jobs import train_file

        typed = [name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE]
        if other := sorted(set(typed) - {"jobs", "folder", "parallel", "scheduler", "page", "as_json"}):
            raise click.UsageError(
                f"--{other[0].replace('_', '-')} cannot be combined with a file of jobs; specify it in the file"
            )
        if ranks.size > 1:
            raise click.UsageError(
                "a file of jobs cannot be trained under torchrun, whose processes train one job together"
            )
        return train_file(ctx, jobs, folder, parallel, scheduler, page, as_json)
    for option, given_value in (("--parallel", parallel), ("--scheduler", scheduler)):
        if given_value is not None:
            raise click.UsageError(f"{option} requires a file of jobs: multiseg train jobs.toml {option} {given_value}")
    for name, value in (("--dataset", dataset), ("--run", folder)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    assert dataset is not None and folder is not None

    from multiseg.errors import TrainingStopped
    from multiseg.job.job import Job
    from multiseg.run.resuming import requested
    from multiseg.watch.pages import written

    policy = {"policy": lr_policy or DEFAULT, **pairs(lr_option, "--lr-option")} if lr_option else lr_policy
    settings |= dict(
        solver_options=numbers(solver_option, "--solver-option"),
        loss_options=numbers(loss_option, "--loss-option"), class_weights=weights_of_classes(class_weights),
        multipliers=multipliers(multiplier), lr_policy=policy,
        augment=pairs(augment, "--augment"), mean=None if mean is None else channel_values(mean, "--mean"),
        divide_std=deviations(divide_std), model_options=options_of(model_option), outputs=names_of(outputs),
    )  # fmt: skip
    if resume:
        stated = {name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}
        settings |= {
            name: value for name, value in requested(folder).items() if not stated & OPTIONS_OF.get(name, {name})
        }
    job = Job(dataset=dataset, **settings)
    try:
        listener = print_json if as_json else True
        with written(page if ranks.leads else None, [folder]):
            run = job.train(folder, resume, listener, tensorboard, skip_damaged=skip_damaged)
    except TrainingStopped as error:
        if not ranks.leads:
            raise
        typed = ctx.meta[ARGUMENTS]
        again = shlex.join(["multiseg", *typed, *([] if resume else ["--resume"])])
        raise TrainingStopped(f"{error.template}:\n  {again}", error.signal) from None
    if not as_json and ranks.leads:
        row = run.history[-1]
        scores = ", ".join(
            f"{metric.title} {row[metric.key]:.4g}"
            for metric in IN_PROGRESS
            if metric.measure and row[metric.key] is not None
        )
        scores = f"; validation: {scores}" if scores else ""
        click.echo(f"{run.path}: {run.title}, {row['epoch']} epochs{scores}")


def pairs(given: tuple[str, ...], option: str) -> dict[str, Any]:
    """Parse NAME=VALUE pairs: true and false, numbers, comma-separated lists of numbers, otherwise text."""

    def read(text: str) -> Any:
        if text in ("true", "false"):
            return text == "true"
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            return text
        return values if "," in text else values[0]

    result = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise click.BadParameter(f"{each!r} is not NAME=VALUE", param_hint=option)
        result[name.strip()] = read(value.strip())
    return result


def numbers(given: tuple[str, ...], option: str) -> dict[str, float]:
    """Parse NAME=VALUE pairs whose values are numbers. Raises click.BadParameter for anything else."""
    result = {}
    for pair in given:
        name, _, value = pair.partition("=")
        try:
            result[name.strip()] = float(value)
        except ValueError:
            raise click.BadParameter(f"{pair!r} is not NAME=NUMBER", param_hint=option) from None
    return result


def channel_values(text: str, option: str) -> list[float]:
    """Parse comma-separated numbers. Raises click.BadParameter for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers, e.g. 104,117,123", param_hint=option) from None


def deviations(text: str | None) -> str | list[float] | None:
    """Parse --divide-std: ``dataset``, or comma-separated numbers. Raises click.BadParameter for anything else."""
    return text if text in (None, OF_DATASET) else channel_values(text, "--divide-std")


def weights_of_classes(text: str | None) -> str | list[float] | None:
    """Parse class weights: comma-separated numbers, else a word, which the job checks."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return text


def multipliers(given: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Parse PARAMETER=LR[,DECAY] into a job's multipliers. Raises click.BadParameter for anything else."""
    result = {}
    for each in given:
        name, _, text = each.partition("=")
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            values = []
        if not 1 <= len(values) <= 2:
            raise click.BadParameter(f"{each!r} is not PARAMETER=LR or PARAMETER=LR,DECAY", param_hint="--multiplier")
        result[name.strip()] = dict(zip(("lr", "decay"), values, strict=False))
    return result
