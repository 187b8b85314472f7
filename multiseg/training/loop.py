"""The training loop: steps, validation, snapshots and history, shared by all backends."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from multiseg.dataset import Dataset
from multiseg.dataset.labels import ignored
from multiseg.dataset.readers import Readers
from multiseg.errors import TrainingError, TrainingStopped, setting
from multiseg.inference.validation import validate
from multiseg.layout import Layout
from multiseg.run import requests, snapshots
from multiseg.run.folder import RunFolder
from multiseg.run.snapshots import Position
from multiseg.settings.binary import foreground_of_outputs
from multiseg.settings.loaded import LoadedSettings
from multiseg.training.distributed.leader import Leader
from multiseg.training.events import Progress
from multiseg.training.pace import Pace
from multiseg.training.plan import Plan
from multiseg.training.signals import Stop
from multiseg.training.steps import IN_FLIGHT, Share
from multiseg.training.validation_pictures import ValidationPictures
from multiseg.worker.client import Worker

REQUEST_SECONDS = 0.1  # between looks into the run folder for a request: a small network takes a millisecond for a step


class _StopNow(Exception):
    """Unwinds the loop, so that a last snapshot is written."""


class Loop:
    """One training, from the run folder's last snapshot (or from the beginning) to the last epoch."""

    def __init__(
        self,
        settings: LoadedSettings,
        plan: Plan,
        dataset: Dataset,
        layout: Layout,
        worker: Worker,
        folder: RunFolder,
        report: Progress,
        stop: Stop,
        leader: Leader,
        readers: Readers,
    ) -> None:
        self.settings, self.plan, self.dataset, self.layout = settings, plan, dataset, layout
        self.worker, self.folder, self.report, self.stop = worker, folder, report, stop
        self.leader, self.share = leader, Share(settings, plan, dataset, layout, leader.ranks, readers)
        folder.metric = settings.metric
        self.position = Position()
        self.snapshot_asked = False
        self.pace, self.last_answer = Pace(), 0.0  # in the time of time.perf_counter
        self.next_look = 0.0  # for a request, in the time of time.monotonic
        self.foreground = foreground_of_outputs(dataset.labels, settings.threshold, settings.network)
        labels = replace(dataset.labels, kind=settings.network.get("labels", dataset.labels.kind))
        self.pictures = ValidationPictures(folder.path, dataset.val, labels, self.foreground, settings.val_crop)

    def run(
        self, transferred: dict[str, Any] | None, zero: Sequence[str] = (), notes: Sequence[str] = ()
    ) -> None:  # fmt: skip
        """Train the remaining iterations; ``transferred`` is the summary of the start weights, ``zero`` the layers whose weights
        are all zero, ``notes`` what the network file leaves ambiguous.

        Raises TrainingStopped if a stop was requested, TrainingError if the loss is not finite.
        """
        self.position = self.folder.begin()
        requests.take(self.folder.path)  # one that came too late for an earlier training
        if self.position.iteration:
            last = self.folder.last_snapshot()
            assert last is not None
            self.worker.call("restore", folder=str(last.path.resolve()))
        self.leader.begin(self.settings, self.dataset, self.position.iteration)
        self._log({
            "event": "start", "backend": self.settings.backend.title, "epochs": self.settings.epochs,
            "images": self.plan.images, "batch_size": self.plan.batch_size, "iterations": self.plan.iterations,
            "iteration": self.position.iteration, "epoch": self.position.epoch,
            "folder": self.settings.origins.get("folder", str(self.folder.path)),
            **({"weights": transferred} if transferred else {}),
            **({"zero_layers": list(zero)} if zero else {}),
            **({"notes": list(notes)} if notes else {}),
            **{key: value for key, value in self.settings.network.items() if key == "compile_seconds"},
            **({"exported": self.settings.exported, "loss": self.settings.loss_name} if self.settings.exported else {}),
        })  # fmt: skip
        try:
            early = self._train()
        except _StopNow:
            self._stop()
        self.folder.finish(self.worker.call("memory"), stopped_early=early)
        self._log({"event": "end", "stopped_early": early})

    def _train(self) -> bool:
        """Train until the end, and return whether it ended early because the metric stopped improving."""
        plan, early = self.plan, False
        while True:
            done = self.position.iteration
            validated = plan.validates(done) and not self._has_row()
            if plan.has_row(done) and not self._has_row():
                self._row(plan.validates(done))
            patience = self.settings.patience
            early = patience is not None and self.folder.stalled(patience, self.settings.min_delta)
            if early or done == plan.iterations:
                self._snapshot()
                return early and done < plan.iterations
            if done and (plan.snapshots(done) or (validated and self._is_best() and self.settings.keep != "last")):
                self._snapshot()
            self._steps(plan.next_point(done))

    def _steps(self, until: int) -> None:
        """Train up to the iteration ``until``, within the epoch."""
        in_flight: deque[tuple[int, int]] = deque()  # (number of the call, number of its steps)
        began = self.last_answer = time.perf_counter()
        with closing(self.share.steps(self.position.iteration, until)) as steps:
            for step in steps:
                if self._interrupted():
                    break
                group = [step, *islice(steps, self.pace.steps(step) - 1)]
                in_flight.append((self.worker.submit("train_steps", steps=group), len(group)))
                if len(in_flight) >= IN_FLIGHT:
                    self._collect(*in_flight.popleft())
            while in_flight:
                self._collect(*in_flight.popleft())
        self.position.seconds += time.perf_counter() - began
        self._look_for_stop()
        if self.snapshot_asked:
            self.snapshot_asked = False
            self._snapshot()

    def _collect(self, number: int, steps: int) -> None:
        """Wait for the losses of the steps of a call in flight, and report each step."""
        losses = self.worker.result(number)
        now = time.perf_counter()
        self.pace.took(steps, now - self.last_answer)
        self.last_answer = now
        for loss in losses:
            self._count(loss, self.plan.images_of(self.position.iteration))

    def _count(self, loss: float, images: int) -> None:
        """Update the position for the loss of a step, and report the step."""
        position = self.position
        if not math.isfinite(loss):
            raise TrainingError(self._bad_loss(loss))
        position.iteration += 1
        position.epoch = self.plan.epoch(position.iteration)
        position.loss_sum += loss * images
        position.images += images
        self.report({
            "event": "step", "epoch": (position.iteration - 1) // self.plan.per_epoch + 1,
            "iteration": position.iteration, "loss": loss, "rate": self.share.rate(position.iteration - 1), "images": images,
        })  # fmt: skip

    def _bad_loss(self, loss: float) -> str:
        self.worker.drain()
        bad_names = [name for name, value in self.worker.call("get_weights").items() if not np.isfinite(value).all()]
        where = f"the first weights that are not finite are {bad_names[0]!r}" if bad_names else "all weights are finite"
        rate, iteration = self.settings.learning_rate, self.position.iteration
        return (
            f"{self.settings.backend.title}: the loss is {loss} at iteration {iteration + 1} "
            f"(epoch {iteration // self.plan.per_epoch + 1}), {where}; "
            f"try a learning rate below {rate:g}, e.g. {rate / 10:g}"
        )

    def _has_row(self) -> bool:
        return bool(self.folder.rows and self.folder.rows[-1]["iteration"] == self.position.iteration)

    def _is_best(self) -> bool:
        best = self.folder.best_row()
        return best is not None and best["iteration"] == self.position.iteration

    def _row(self, with_validation: bool) -> None:
        """Add a row to the history: the training since the last row, and optionally a validation."""
        position, settings = self.position, self.settings
        began = time.perf_counter()
        split = self.dataset.val if with_validation else ()
        self.pictures.begin()
        validated = validate(
            self.worker,
            split,
            self.layout,
            settings.val_batch_size,
            self.foreground,
            settings.network.get("labels"),
            ignored(settings.network, self.dataset.labels),
            self._look_for_stop,
            settings.val_crop,
            self.pictures.add,
            self.share.readers,
        )
        row = {
            "epoch": position.epoch, "iteration": position.iteration,
            "train_loss": position.loss_sum / position.images if position.images else None, **validated.result(),
            "learning_rate": self.share.rate(max(position.iteration - 1, 0)), "seconds": position.seconds,
            "val_seconds": time.perf_counter() - began,
            "images_per_second": position.images / position.seconds if position.images else None,
        }  # fmt: skip
        self.folder.add_row(row)
        self.position = Position(position.iteration, position.epoch, len(self.folder.rows))
        class_iou = validated.class_iou(self.dataset.labels.names)
        self._log({"event": "epoch", **row, **({"class_iou": class_iou} if class_iou else {})})

    def _snapshot(self) -> None:
        """Write a snapshot unless this position has one, and remove the snapshots that are not kept."""
        position = replace(self.position, rate=self.share.rate(max(self.position.iteration - 1, 0)))
        last = self.folder.last_snapshot()
        if last is None or last.position.iteration != position.iteration:
            with snapshots.writing(self.folder.path, position, self.plan.per_epoch) as part:
                self.worker.call("save", folder=str(part.resolve()))
            self._log({"event": "snapshot", "iteration": position.iteration, "epoch": position.epoch})
        self.folder.keep(self.settings.keep)

    def _interrupted(self) -> bool:
        """Return whether a stop or a snapshot is requested, by a signal or through the run folder."""
        if time.monotonic() >= self.next_look:
            request = requests.take(self.folder.path)
            if request == "stop":
                self.stop.ask()
            self.snapshot_asked |= request == "snapshot"
            self.next_look = time.monotonic() + REQUEST_SECONDS
        return self.stop.asked or self.snapshot_asked

    def _look_for_stop(self) -> None:
        if self._interrupted() and self.stop.asked:
            raise _StopNow

    def _stop(self) -> None:
        by = f" by {self.stop.signal.name}" if self.stop.signal else ""
        if self.position.iteration:
            self._snapshot()
        raise TrainingStopped(
            f"{self.folder.path}: stopped{by} after iteration {self.position.iteration} of {self.plan.iterations} "
            f"(epoch {self.position.epoch:g} of {self.settings.epochs}); continue with {setting('resume')}",
            self.stop.signal,
        )

    def _log(self, event: dict[str, Any]) -> None:
        """Report an event, and log it in the run folder."""
        self.folder.log(event)
        self.report(event)
