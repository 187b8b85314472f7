"""``multiseg watch``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Port to listen on.  [default: a free one]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page to this file instead, again and again until all runs have ended.",
)  # fmt: skip
def watch(runs: tuple[Path, ...], port: int, output: Path | None) -> None:
    """Watch trainings on a page that a browser shows: run folders, folders of them, or files of jobs (.toml).

    The page is at an address of this machine only, with a token in it: whoever has it can stop the trainings. Runs may start and
    end at any time; so may this command, of which they know nothing.
    """
    from multiseg.watch.pages import follow
    from multiseg.watch.server import WatchServer
    from multiseg.watch.watcher import Watcher

    watcher = Watcher([folder for path in runs for folder in run_folders(path)])
    if output is not None:
        follow(output, watcher)
        click.echo(output)
        return
    with WatchServer(watcher, port) as server:
        click.echo(f"{server.address}\nCtrl-C ends this page, and no training.")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            click.echo()


def run_folders(path: Path) -> list[Path]:
    """Return the folders of the jobs of a file, or the folder itself."""
    if not path.is_file():
        return [path]
    from multiseg.jobs.file import read_jobs

    jobs = read_jobs(path)
    return [jobs.runs / name for name in jobs.jobs]
