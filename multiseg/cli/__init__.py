"""The ``multiseg`` command. Each command is in its own module, which is imported when the command is invoked."""

from multiseg.cli.starting import INTERRUPTED, LINE, Interrupts

# isort: split
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

import click

from multiseg.backend import TRUST_GRAPH
from multiseg.cli.notation import message, visible
from multiseg.errors import MultisegError, TrainingStopped

# name -> module:attribute; packages add theirs as entry points of the group multiseg.commands
COMMANDS = {
    "create-images": "multiseg.cli.dataset:create_images",
    "create-dataset": "multiseg.cli.dataset:create_dataset",
    "check-dataset": "multiseg.cli.dataset:check_dataset",
    "show-dataset": "multiseg.cli.dataset:show_dataset",
    "train": "multiseg.cli.train:train",
    "export-history": "multiseg.cli.history:export_history",
    "test-one": "multiseg.cli.results:test_one",
    "test-list": "multiseg.cli.results:test_list",
    "test-db": "multiseg.cli.results:test_db",
    "describe": "multiseg.cli.model:describe",
    "visualize": "multiseg.cli.model:visualize",
    "watch": "multiseg.cli.watch:watch",
    "compare": "multiseg.cli.compare:compare",
    "parity": "multiseg.cli.parity:parity",
    "fuzz": "multiseg.cli.fuzz:fuzz",
    "export": "multiseg.cli.export:export",
    "convert": "multiseg.cli.convert:convert",
    "models": "multiseg.cli.models:models",
    "backends": "multiseg.cli.backends:backends",
    "demo": "multiseg.cli.demo:demo",
}


# commands that load network files
LOADING = (
    "train", "test-one", "test-list", "test-db", "describe", "visualize", "compare", "parity", "export", "convert",
)  # fmt: skip


def _trust_graph() -> click.Option:
    """Return the option that lets graph files run operations of any kind, in this process and its workers."""

    def trust(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            os.environ[TRUST_GRAPH] = "1"

    return click.Option(
        ["--trust-graph"],
        is_flag=True,
        expose_value=False,
        callback=trust,
        help="Run operations and layers of graph files that may read or write other files.",
    )


ARGUMENTS = "multiseg.arguments"  # key of a context's meta: the arguments of the program


class LazyGroup(click.Group):
    """A click group that imports a command's module only when the command is needed."""

    @cached_property
    def _targets(self) -> dict[str, str]:
        added = {point.name: point.value for point in entry_points(group="multiseg.commands")}
        return COMMANDS | added

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._targets)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        target = self._targets.get(name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        if name in LOADING and all(param.name != "trust_graph" for param in command.params):
            command.params.append(_trust_graph())
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = list(args)
        if isinstance(
            sys.stdout, io.TextIOWrapper
        ):  # file names that are not UTF-8 are printed as the bytes that they are
            sys.stdout.reconfigure(errors="surrogateescape")
        return super().parse_args(ctx, args)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **options: Any
    ) -> Any:
        """Run a command. Ctrl-C ends the program with one line and the status INTERRUPTED, at any moment."""
        run: Callable[..., Any] = super().main
        if not standalone_mode:
            return run(args, standalone_mode=False, **options)
        try:
            with Interrupts():
                result = run(args, standalone_mode=False, **options)
            sys.exit(result if isinstance(result, int) else 0)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo(LINE, err=True)
            sys.exit(INTERRUPTED)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TrainingStopped as error:
            self._print(ctx, error)
            ctx.exit(128 + (error.signal or signal.SIGINT))  # as a shell reports a program ended by this signal
        except MultisegError as error:
            self._print(ctx, error)
            ctx.exit(2)
        except OSError as error:  # a folder that cannot be written, a full disk
            click.echo(visible(f"multiseg: {error.filename or 'output'}: {error.strerror or error}"), err=True)
            ctx.exit(2)

    def _print(self, ctx: click.Context, error: MultisegError) -> None:
        """Print an error of the invoked command, with that command's options in the place of settings."""
        command = self.get_command(ctx, ctx.invoked_subcommand or "") or self
        click.echo(f"multiseg: {message(error, command)}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="multiseg", prog_name="multiseg")
def main() -> None:
    """Train, test and compare one segmentation network in Caffe, PyTorch and TensorFlow, over one dataset."""
