"""``multiseg demo``: the whole tutorial in a few minutes, with every installed backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from multiseg.cli.tables import print_table
from multiseg.files import json_text

# Faster than the tutorial's recipe: larger batches, an adaptive solver, a learning rate that decreases to 0. The same for
# every backend, with the same loss and no weight decay, so that their figures can be compared.
SETTINGS: dict[str, Any] = {
    "epochs": 6,
    "batch_size": 32,
    "val_batch_size": 32,
    "solver": "adam",
    "solver_options": {"weight_decay": 0.0},
    "learning_rate": 2e-3,
    "lr_policy": "linear",
    "loss": "l2",
    "seed": 1,
}
NOTE = """\
The demo's settings are quicker than the tutorial's: epochs: {epochs} instead of
150, batches of {batch_size}, Adam at {learning_rate:g} falling linearly to 0, mean squared
error. The tutorial's own, each framework with its own defaults, 150 epochs:

    multiseg train --dataset {dataset} --backend NAME --run {runs}/tutorial-NAME
"""


@click.command()
@click.option(
    "-o",
    "--output",
    default="multiseg-demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for images, dataset, runs and page.",
)
@click.option("-c", "--count", type=click.IntRange(min=10), default=10_000, show_default=True, help="Pairs of images.")
@click.option("--epochs", type=click.IntRange(min=1), default=SETTINGS["epochs"], show_default=True)
@click.option("--backend", "chosen", multiple=True, help="Only this backend; may be repeated.  [default: all]")
@click.option(
    "--install-missing",
    is_flag=True,
    help="Install missing frameworks that have a command `multiseg install-...` while the others train.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON, everything else on standard error.")
def demo(output: Path, count: int, epochs: int, chosen: tuple[str, ...], install_missing: bool, as_json: bool) -> None:
    """Create the triangles, train the FCN with every backend, test it, and write one page that compares them.

    The exit status is 1 if a backend failed.
    """
    import multiseg
    from multiseg import backend as registry
    from multiseg.cli.installing import start_installing
    from multiseg.dataset.names import FEATURES, VAL
    from multiseg.errors import MultisegError, RunError, TrainingStopped
    from multiseg.images import save_image
    from multiseg.settings.metrics import LOSS

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(f"{output}: exists already; choose another folder with -o, or remove it")
    backends = [registry.get(name) for name in chosen or registry.names()]
    images, folder, runs = output / "images", output / "dataset", output / "runs"

    def say(text: str) -> None:
        click.echo(text, err=as_json)

    installing = start_installing(backends) if install_missing else {}
    backends.sort(key=lambda backend: backend.name in installing)  # those that are being installed come last
    for name, command in installing.items():
        say(f"Installing {name} in the background: {command.text}")
    say(f"Creating {count} pairs of images in {images}")
    multiseg.create_images(images, count=count, seed=1)
    say(f"Creating the dataset in {folder}")
    dataset = multiseg.Dataset.create(folder, input=images / "input", target=images / "target", seed=1)
    say("\n" + NOTE.format(**{**SETTINGS, "epochs": epochs}, dataset=folder, runs=runs))

    rows: list[tuple[str, ...]] = []
    finished, failures = [], []
    for backend in backends:
        try:
            if backend.name in installing:
                say(f"Waiting until {backend.title} is installed")
                installing[backend.name].wait()
            run = multiseg.Job(dataset=dataset, backend=backend.name, **{**SETTINGS, "epochs": epochs}).train(
                runs / backend.name
            )
            tested = run.test_db(dataset.path / VAL / FEATURES)
            save_image(run.test_one(images / "grid.png", resize=False).image, runs / backend.name / "grid.png")
        except TrainingStopped:
            raise
        except MultisegError as error:
            failures.append(f"{backend.title} failed: {error}")
            rows.append((backend.title, "failed", "-", "-", "-"))
            continue
        seconds = run.summary["train_seconds"] / epochs
        version = str(run.environment["framework"])
        rows.append((backend.title, version, f"{tested[LOSS]:.1f}", f"{tested['iou']:.4f}", f"{seconds:.1f}"))
        finished.append(run)
    numbers = ("val loss", "IoU", "s/epoch")
    print_table(("backend", "version", *numbers), rows, numbers, "Validation after training", err=as_json)
    for failure in failures:
        click.echo(failure, err=True)
    figures: dict[str, Any] = {"report": None, "runs": []}
    if finished:
        comparison = multiseg.compare(finished, grid=images / "grid.png")
        page = comparison.to_html(output / "report.html")
        say(f"Side by side: {page}")
        figures = {"report": str(page), **comparison.to_dict()}
    if as_json:
        click.echo(json_text({**figures, "failures": failures}))
    for run in finished:
        run.close()
    if failures:
        raise SystemExit(1)
