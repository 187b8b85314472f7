"""Ranks other than 0 of a training in several processes: each feeds its shard until rank 0 reports the end.

They write no files, and need only the dataset and the network file.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiseg.dataset import Dataset
from multiseg.errors import SettingsError, TrainingError, TrainingStopped
from multiseg.files.scratch import TemporaryFolder
from multiseg.run.reading import is_run
from multiseg.run.run import Run
from multiseg.settings.loaded import LoadedSettings
from multiseg.settings.resolved import Settings
from multiseg.training.distributed.leader import common
from multiseg.training.preparation import export, layout_of, load, network_spec, plan_of
from multiseg.training.ranks import Ranks
from multiseg.training.signals import Stop, listening
from multiseg.training.steps import IN_FLIGHT, Share, readers_for
from multiseg.worker import pool
from multiseg.worker.client import Worker


def follow(settings: Settings, dataset: Dataset, folder: Path, ranks: Ranks) -> Run:
    """Take part in the training that rank 0 leads, and return its Run; see Job.train.

    Raises TrainingStopped or TrainingError if rank 0 was stopped or failed, SettingsError if rank 0 trains a different job.
    """
    module = ranks.network_module(settings.backend)
    ranks.check_batch_size(settings.batch_size)
    layout = layout_of(settings, dataset)
    spec = network_spec(settings, dataset)
    with ExitStack() as stack:
        if settings.exported:
            exported = stack.enter_context(TemporaryFolder()).path / settings.exported
            export(settings, spec, exported)
            spec = replace(spec, model=str(exported))
        # closed after the worker, because torchrun sends a signal to all processes as soon as one of them ends
        signal_handlers = stack.enter_context(ExitStack())
        worker = stack.enter_context(pool.start(settings.backend, settings.threads))
        settings, spec, described = load(worker, settings, spec, module)
        signal_handlers.enter_context(listening(Stop()))  # the first signal is handled by rank 0
        loaded = LoadedSettings.of(settings, described)
        message = worker.call("share")
        if "end" not in message:
            _check_common(ranks, message["common"], common(loaded, dataset))
            loaded = replace(loaded, seed=message["seed"])
            worker.call("align")
            readers = stack.enter_context(readers_for(loaded, ranks))
            feed = Share(loaded, plan_of(loaded, dataset), dataset, layout, ranks, readers)
            _feed(worker, feed, message["iteration"])
            message = worker.call("share")
    return _ended(ranks, folder, message)


def _check_common(ranks: Ranks, leader_values: dict[str, Any], own_values: dict[str, Any]) -> None:
    for key, leader_value in leader_values.items():
        own_value = own_values.get(key)
        if own_value != leader_value:
            difference = (
                "differs from rank 0's"
                if key.startswith("content")
                else f"is {own_value!r}, but {leader_value!r} on rank 0"
            )
            raise SettingsError(f"rank {ranks.rank}: {key} {difference}; start all processes with the same job")


def _feed(worker: Worker, share: Share, iteration: int) -> None:
    """Feed steps until all are done, or until rank 0 sends a message, which means that its training has ended."""
    in_flight: deque[int] = deque()
    for step in share.steps(iteration, share.plan.iterations):
        in_flight.append(worker.submit("train_step", **step))
        if len(in_flight) >= IN_FLIGHT and worker.result(in_flight.popleft()) is None:
            break
    while in_flight:
        worker.result(in_flight.popleft())


def _ended(ranks: Ranks, folder: Path, message: dict[str, Any]) -> Run:
    if message["end"] == "stopped":
        raise TrainingStopped(f"rank {ranks.rank}: ended with rank 0", message["signal"])
    if message["end"] == "failed":
        raise TrainingError(f"rank {ranks.rank}: ended with rank 0, whose training failed: {message['message']}")
    if not is_run(folder):  # this machine cannot access the run folder, so there is nothing to return
        raise SystemExit(0)
    return Run.open(folder)
