"""The training loop: epochs, schedule, batches, validation, snapshots and history, once for every backend."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multiseg import environment
from multiseg.dataset import Dataset
from multiseg.dataset.feed import batches, epoch_order
from multiseg.errors import DatasetError, SettingsError, TrainingError
from multiseg.job import Job, Progress, Settings
from multiseg.layout import Layout
from multiseg.metrics import Metrics
from multiseg.network import NetworkSpec
from multiseg.run import Run, RunFolder
from multiseg.worker.client import Worker

IN_FLIGHT = 2  # steps asked for before the first one's loss is awaited: the worker never waits for the next batch


def train(job: Job, folder: Path, resume: bool, progress: bool | Progress) -> Run:
    """Train ``job`` into ``folder``; see Job.train."""
    settings = job.resolve()
    dataset = job.dataset if isinstance(job.dataset, Dataset) else Dataset.open(job.dataset)
    mean = mean_of(dataset, settings.subtract_mean)
    layout = Layout(settings.backend.data_order, settings.backend.channel_order, mean)
    begun = RunFolder.resume(folder, settings, dataset, job.seed) if resume else None  # fills in what is left open
    spec = network_spec(settings, dataset)
    run = begun or RunFolder.create(folder)
    with run.locked(), run.failing(), Worker(settings.backend, settings.threads, run.path / "worker.log") as worker:
        described = worker.call("load", spec=spec.to_json())
        for key in ("batch_size", "val_batch_size", "loss", "device"):
            setattr(settings, key, described[key])
        if not resume:
            model = run.path / "model" / settings.model.name
            model.parent.mkdir()
            shutil.copyfile(settings.model, model)
            run.start(settings, dataset, mean, described, environment.of(worker.found, settings.threads))
        with _reporter(progress) as report:
            _Loop(settings, dataset, layout, worker, run, report).run()
    return Run.open(folder)


def network_spec(settings: Settings, dataset: Dataset) -> NetworkSpec:
    """What the backend builds for these settings and this dataset. Raises SettingsError for mixed image sizes."""
    shape, label_shape = dataset.train.shape, dataset.train.label_shape
    if not len(dataset.train):
        raise SettingsError(f"{dataset.path}: has no training images")
    if label_shape is None and shape is not None:
        raise SettingsError(
            f"{dataset.path}: its training images have no labels, or labels of several sizes; training needs one"
        )
    if shape is None or label_shape is None:
        raise SettingsError(
            f"{dataset.path}: its images differ in size; training needs one size, create the dataset with it"
        )
    return NetworkSpec(
        model=str(settings.model),
        input_shape=shape,
        label_shape=label_shape,
        solver=settings.solver,
        loss=settings.loss,
        batch_size=settings.batch_size,
        val_batch_size=settings.val_batch_size,
        seed=settings.seed,
        threads=settings.threads,
        device=settings.device,
        lowering=settings.lowering,
    )


def mean_of(dataset: Dataset, subtract_mean: str) -> Any:
    """The mean to subtract: (C,) for ``pixel``, (C, H, W) for ``image``, None for ``none``. Raises SettingsError if absent."""
    if subtract_mean == "none":
        return None
    mean = dataset.mean_pixel if subtract_mean == "pixel" else dataset.mean_image
    if mean is None:
        raise SettingsError(
            f"{dataset.path}: has no mean image (train_db/mean.binaryproto); train with subtract_mean='none'"
        )
    return mean


@contextmanager
def _reporter(progress: bool | Progress) -> Iterator[Progress]:
    if callable(progress):
        yield progress
    elif progress:
        from multiseg.progress import Bar

        with Bar() as bar:
            yield bar
    else:
        yield lambda event: None


class _Loop:
    """One training, from the run folder's last snapshot (or from nothing) to the last epoch."""

    def __init__(
        self, settings: Settings, dataset: Dataset, layout: Layout, worker: Worker, run: RunFolder, report: Progress
    ) -> None:
        self.settings, self.dataset, self.layout = settings, dataset, layout
        self.worker, self.run_folder, self.report = worker, run, report
        assert settings.batch_size and settings.val_batch_size  # the network filled them in
        self.batch_size, self.val_batch_size = settings.batch_size, settings.val_batch_size
        self.per_epoch = math.ceil(len(dataset.train) / self.batch_size)
        self.iterations = self.per_epoch * settings.epochs

    def run(self) -> None:
        """Train what is left to train."""
        start = self.run_folder.last_snapshot()
        self.report({
            "event": "start", "backend": self.settings.backend.title, "epochs": self.settings.epochs,
            "images": len(self.dataset.train), "batch_size": self.batch_size, "iterations": self.iterations,
            "epoch": start.epoch if start else 0, "folder": str(self.run_folder.path),
        })  # fmt: skip
        self.run_folder.rewind(start.epoch if start else -1)
        if start:
            self.worker.call("restore", folder=str(start.path))
        else:
            self._row(0, {"train_loss": None, "seconds": 0.0, "images_per_second": None})
        for epoch in range(start.epoch if start else 0, self.settings.epochs):
            trained = self._epoch(epoch)
            self._row(epoch + 1, trained)
            with self.run_folder.snapshot(epoch + 1, self.settings.keep) as part:
                self.worker.call("save", folder=str(part))
        self.run_folder.finish(self.worker.call("memory"))
        self.report({"event": "end"})

    def _rate(self, iteration: int) -> float:
        return self.settings.schedule.rate(self.settings.learning_rate, iteration, self.iterations)

    def _epoch(self, epoch: int) -> dict[str, Any]:
        order = epoch_order(len(self.dataset.train), self.settings.seed, epoch)
        began = time.perf_counter()
        total, done, iteration = 0.0, 0, epoch * self.per_epoch
        sizes: list[int] = []  # of the batches that are on their way

        def collect() -> None:
            nonlocal total, done
            loss = self.worker.result()
            size = sizes.pop(0)
            at = iteration - len(sizes)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"{self.settings.backend.title}: the loss is {loss} at iteration {at} (epoch {epoch + 1}); "
                    f"try a learning rate below {self.settings.learning_rate:g}, e.g. {self.settings.learning_rate / 10:g}"
                )
            total, done = total + loss * size, done + size
            self.report(
                {
                    "event": "step",
                    "epoch": epoch + 1,
                    "iteration": at,
                    "loss": loss,
                    "rate": self._rate(at - 1),
                    "images": size,
                }
            )

        with batches(self.dataset.train, self.batch_size, order=order, layout=self.layout) as feed:
            for batch in feed:
                self.worker.submit(
                    "train_step", features=batch.features, labels=batch.labels, rate=self._rate(iteration)
                )
                sizes.append(len(batch.indices))
                iteration += 1
                if len(sizes) >= IN_FLIGHT:
                    collect()
            while sizes:
                collect()
        seconds = time.perf_counter() - began
        return {"train_loss": total / done, "seconds": seconds, "images_per_second": done / seconds}

    def _row(self, epoch: int, trained: dict[str, Any]) -> None:
        began = time.perf_counter()
        iteration = epoch * self.per_epoch
        validated = validate(self.worker, self.dataset.val, self.layout, self.val_batch_size)
        row = {
            "epoch": epoch, "iteration": iteration, "train_loss": trained["train_loss"], **validated,
            "learning_rate": self._rate(max(iteration - 1, 0)), "seconds": trained["seconds"],
            "val_seconds": time.perf_counter() - began, "images_per_second": trained["images_per_second"],
        }  # fmt: skip
        self.run_folder.add_row(row)
        self.report({"event": "epoch", **row})


def validate(worker: Worker, split: Any, layout: Layout, batch_size: int) -> dict[str, float | None]:
    """Loss (weighted by batch, None without images) and neutral metrics of a loaded network over a whole split."""
    metrics, total, count = Metrics(), 0.0, 0
    with batches(split, batch_size, layout=layout) as feed:
        for batch in feed:
            if batch.labels is None:
                raise DatasetError(
                    f"{split.name}: has no labels beside it; without targets there is nothing to measure"
                )
            output, loss, _ = worker.call("predict", features=batch.features, labels=batch.labels)
            metrics.add(layout.output(output), layout.output(batch.labels))
            total, count = total + loss * len(batch.indices), count + len(batch.indices)
    if not count:
        return {"val_loss": None, **dict.fromkeys(metrics.result())}
    return {"val_loss": total / count, **metrics.result()}
