"""Show the progress of a training on a terminal: a bar, and a line for each row of the history."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from multiseg.settings.metrics import IN_PROGRESS
from multiseg.training import zero_start
from multiseg.training.warm_start import partial_start, surgery

WIDE = 124  # columns of a terminal on which everything fits; a narrower one has loss, images/s and remaining time


class ImagesPerSecond(ProgressColumn):
    """The speed, computed only when the bar is refreshed, because rich sums over a thousand steps for it."""

    def render(self, task: Task) -> Text:
        """Return the speed of a task whose steps are batches of ``batch_size`` images."""
        speed = task.speed
        return Text(f"{speed * task.fields['batch_size']:.0f} images/s" if speed else "- images/s")


class Bar:
    """Shows the events of a training. The bar, on terminals only, has loss, learning rate, images/s and remaining time."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        wide = self.console.width >= WIDE
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24 if wide else 8),
            *([MofNCompleteColumn()] if wide else []),
            TextColumn("loss {task.fields[loss]}"),
            *([TextColumn("rate {task.fields[rate]}")] if wide else []),
            ImagesPerSecond(Column(no_wrap=True)),
            *([TimeElapsedColumn()] if wide else []),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            refresh_per_second=4,
        )
        self.epochs = 0
        self.backend = ""

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event of multiseg.training."""
        if event["event"] == "start":
            self.backend, self.epochs = event["backend"], event["epochs"]
            fields = {"loss": "-", "rate": "-", "batch_size": event["batch_size"]}
            self.task = self.progress.add_task(self.backend, total=event["iterations"], **fields)
            self.progress.update(self.task, completed=event["iteration"])
            if "exported" in event:
                self.progress.console.print(
                    f"the network is written for {self.backend} as {event['folder']}/model/{event['exported']}; "
                    f"loss: {event['loss']}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            if "compile_seconds" in event:
                text = f"the training step was compiled in {event['compile_seconds']:.0f} s"
                self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
            for line in notes_of_start(event):
                self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif event["event"] == "step":
            self.progress.update(
                self.task,
                advance=1,
                loss=f"{event['loss']:.4g}",
                rate=f"{event['rate']:.3g}",
                description=f"{self.backend} epoch {event['epoch']}/{self.epochs}",
            )
        elif event["event"] == "epoch":
            self.progress.console.print(self._line(event), highlight=False, soft_wrap=True)

    def _line(self, row: dict[str, Any]) -> str:
        parts = [f"{self.backend} epoch {row['epoch']}/{self.epochs}"]
        for metric in IN_PROGRESS:
            if row[metric.key] is not None:
                parts.append(f"{metric.key} {row[metric.key]:.4g}")
        parts.append(f"rate {row['learning_rate']:.3g}")
        if row["images_per_second"]:
            parts.append(f"{row['images_per_second']:.0f} images/s, {row['seconds']:.1f} s")
        return "  ".join(parts)


def notes_of_start(event: dict[str, Any]) -> list[str]:
    """Return what to print about the initial weights of a training that begins."""
    if event["iteration"]:
        return []
    summary = event.get("weights")
    copied = surgery(summary) if summary else None
    warnings = [partial_start(summary) if summary else None, zero_start.warning(event.get("zero_layers", ()))]
    notes = [f"note: {note}" for note in event.get("notes", ())]
    return [*notes, *([copied] if copied else []), *(f"warning: {text}" for text in warnings if text)]
