"""The command `multiseg install-caffe`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

PATH = click.Path(path_type=Path)


@click.command()
@click.option("--source", type=PATH, help="Tarball or folder of Caffe's source. Default: Debian's source package.")
@click.option(
    "--from",
    "wheels",
    metavar="DIR|URL|WHEEL",
    help="Install a wheel that was built before: a folder, a page or package index that lists wheels, or one wheel.",
)
@click.option("--sha256", help="Expected SHA-256 of the tarball.")
@click.option("--python", type=PATH, help="Interpreter to build for and install into. Default: the running one.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Parallel compiler processes. Default: one per core.")
@click.option("--force", is_flag=True, help="Build even if an earlier call has cached a wheel.")
@click.option("--wheel-dir", type=PATH, help="Folder to copy the wheel to.")
@click.option("--install/--no-install", default=True, help="Install the wheel, or only build it.", show_default=True)
@click.option(
    "--yes/--no-prerequisites",
    "prerequisites",
    default=True,
    help="Install Debian packages that the build needs (root or passwordless sudo), the default; or build with the "
    "installed packages.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def install_caffe(
    source: Path | None,
    wheels: str | None,
    sha256: str | None,
    python: Path | None,
    jobs: int | None,
    force: bool,
    wheel_dir: Path | None,
    install: bool,
    prerequisites: bool,
    as_json: bool,
) -> None:
    """Build BVLC Caffe's Python module from source and install it.

    The source comes from Debian, through a private apt configuration; building it takes a few minutes on two cores. The
    wheel contains its libraries and is cached in the user's cache folder, so that a second call takes seconds.
    """
    from .install import install_caffe as run

    with Steps() as steps:
        wheel = run(
            source,
            wheels=wheels,
            sha256=sha256,
            python=python,
            jobs=jobs,
            force=force,
            install=install,
            wheel_dir=wheel_dir,
            prerequisites=prerequisites,
            report=steps,
        )
    if as_json:
        result = {"wheel": str(wheel), "built": steps.built, "installed": install, "seconds": round(steps.seconds, 1)}
        click.echo(json.dumps(result))
    else:
        click.echo(f"pycaffe {'installed' if install else 'built'} in {steps.seconds:.0f} s, from {wheel}")


class Steps:
    """Show the steps on standard error: one live line on a terminal, else one line per step with the elapsed seconds."""

    def __init__(self) -> None:
        self.built = False
        self._started = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
            console=Console(stderr=True),
        )  # fmt: skip
        self._live = self._progress.console.is_terminal
        self._task = self._progress.add_task("", total=None)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def __enter__(self) -> Steps:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()

    def __call__(self, step: str, done: float | None) -> None:
        self.built = self.built or done is not None
        if self._live:
            total = None if done is None else 1.0
            self._progress.update(self._task, description=step, total=total, completed=done or 0.0)
        else:
            share = f" {done:.0%}" if done else ""
            click.echo(f"{self.seconds:4.0f} s  {step}{share}", err=True)
