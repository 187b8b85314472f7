"""``multiseg train`` with a file of jobs."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from multiseg.cli import ARGUMENTS
from multiseg.cli.events import print_json

# states of a job on a cluster, by event
STATES = {"attempt": "at {worker}", "dataset": "copying its dataset to {worker}", "lost": "{error}"}


class Lines:
    """Progress of jobs: on a terminal one line per job, elsewhere one line per change of state."""

    def __init__(self, names: list[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=20), TaskProgressColumn(), TextColumn("{task.fields[state]}"),
            TextColumn("left"), TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.tasks = {name: self.bars.add_task(name, total=None, state="waiting", start=False) for name in names}

    def __enter__(self) -> Lines:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, name: str, event: dict[str, Any]) -> None:
        """Show an event of one job."""
        task, kind = self.tasks[name], event["event"]
        if kind == "start":
            self.bars.start_task(task)
            self.bars.update(task, total=event["iterations"], completed=event["iteration"], state="starting")
        elif kind == "step":
            self.bars.update(task, completed=event["iteration"], state=f"loss {event['loss']:.4g}")
        elif kind == "epoch":  # a cluster reports only some of the steps
            self.bars.update(task, completed=event["iteration"])
        elif kind in STATES:
            self.bars.update(task, state=STATES[kind].format(**event))
            if self.bars.disable:
                click.echo(f"{name}: {STATES[kind].format(**event)}", err=True)
        elif kind in ("finished", "skipped", "stopped", "failed"):
            self.bars.update(task, state=kind)
            if self.bars.disable:
                click.echo(f"{name}: {kind}", err=True)


def _quiet_dask() -> None:
    """Suppress Dask's log messages about lost connections, unless its configuration sets up logging."""
    with suppress(ImportError):
        import dask

        if not dask.config.get("logging", None):
            names = ("distributed", "distributed.client")
            dask.config.set({"logging": dict.fromkeys(names, "critical")})


def train_file(
    ctx: click.Context,
    file: Path,
    runs: Path | None,
    parallel: int | None,
    scheduler: str | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """Train the jobs of a file, on this machine or on a cluster, and print the outcome of each."""
    from multiseg.errors import TrainingStopped
    from multiseg.jobs.file import read_jobs
    from multiseg.jobs.jobs import train_jobs
    from multiseg.watch.pages import written

    if scheduler is not None:
        _quiet_dask()
    listed = read_jobs(file)
    where, at_once = runs or listed.runs, parallel or listed.parallel
    with written(page, [where / name for name in listed.jobs]):
        if as_json:
            outcomes = train_jobs(
                listed.jobs,
                where,
                at_once,
                report=lambda name, event: print_json({"job": name, **event}),
                scheduler=scheduler,
            )
        else:
            with Lines(list(listed.jobs)) as lines:
                outcomes = train_jobs(listed.jobs, where, at_once, report=lines, scheduler=scheduler)
    if not as_json:
        for each in outcomes:
            click.echo(f"{each.folder}: {each.status}" + (f": {each.error}" if each.error else ""))
    if any(each.status == "stopped" for each in outcomes):
        again = shlex.join(["multiseg", *ctx.meta[ARGUMENTS]])
        raise TrainingStopped(f"stopped; the same command resumes:\n  {again}")
    if any(each.status == "failed" for each in outcomes):
        ctx.exit(1)
