"""The other ranks' side of a training over several processes: each feeds its share until rank 0 tells how it ended.

They write nothing, and need the dataset and the network file alone.
"""

from __future__ import annotations

import tempfile
from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiseg.dataset import Dataset
from multiseg.errors import SettingsError, TrainingError, TrainingStopped
from multiseg.run.reading import is_run
from multiseg.run.run import Run
from multiseg.settings.loaded import LoadedSettings
from multiseg.settings.resolved import Settings
from multiseg.training.distributed.leader import common
from multiseg.training.preparation import export, layout_of, network_spec, plan_of
from multiseg.training.ranks import Ranks
from multiseg.training.signals import Stop, listening
from multiseg.training.steps import IN_FLIGHT, Share
from multiseg.worker import pool
from multiseg.worker.client import Worker


def follow(settings: Settings, dataset: Dataset, folder: Path, ranks: Ranks) -> Run:
    """Take part in the training that rank 0 leads; see Job.train.

    Raises TrainingStopped and TrainingError where that one was stopped or has failed, SettingsError where its job is another.
    """
    module = ranks.network_module(settings.backend)
    ranks.check_batch_size(settings.batch_size)
    layout = layout_of(settings, dataset)
    spec = network_spec(settings, dataset)
    with ExitStack() as stack:
        if settings.exported:
            exported = Path(stack.enter_context(tempfile.TemporaryDirectory())) / settings.exported
            export(settings, spec, exported)
            spec = replace(spec, model=str(exported))
        ears = stack.enter_context(ExitStack())  # until the worker has ended, as torchrun asks all to go where one has
        worker = stack.enter_context(pool.start(settings.backend, settings.threads))
        described = worker.call("load", spec=spec.to_json(), module=module)
        ears.enter_context(listening(Stop()))  # the first signal is rank 0's to heed
        loaded = LoadedSettings.of(settings, described)
        message = worker.call("share")
        if "end" not in message:
            _check_common(ranks, message["common"], common(loaded, dataset))
            loaded = replace(loaded, seed=message["seed"])
            worker.call("align")
            feed = Share(loaded, plan_of(loaded, dataset), dataset, layout, ranks)
            _feed(worker, feed, message["iteration"])
            message = worker.call("share")
    return _ended(ranks, folder, message)


def _check_common(ranks: Ranks, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for key, value in theirs.items():
        own = ours.get(key)
        if own != value:
            told = "differs from rank 0's" if key.startswith("content") else f"is {own!r}, and {value!r} for rank 0"
            raise SettingsError(f"rank {ranks.rank}: {key} {told}; start all processes with the same job")


def _feed(worker: Worker, share: Share, iteration: int) -> None:
    """Until rank 0 has a message, which is when it has come to an end, or all steps are done."""
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
    if not is_run(folder):  # on a machine that does not see it there is nothing to return, nor to do
        raise SystemExit(0)
    return Run.open(folder)
