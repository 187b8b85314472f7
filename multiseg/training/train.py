"""Train a job into a folder: from its settings to a finished Run; the loop itself is in multiseg.training.loop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiseg.dataset import Dataset
from multiseg.dataset.class_indices import check_classes
from multiseg.dataset.labels import ignored
from multiseg.errors import RunError
from multiseg.files import make_folder, sync_one, sync_tree
from multiseg.layout import Layout
from multiseg.model_files import copies, reading
from multiseg.network import NetworkSpec
from multiseg.run import environment, names
from multiseg.run.folder import RunFolder
from multiseg.run.run import Run
from multiseg.run.snapshots import remove_damaged
from multiseg.settings.binary import check_labels
from multiseg.settings.loaded import LoadedSettings
from multiseg.settings.resolved import Settings
from multiseg.training import label_counts, warm_start, zero_start
from multiseg.training.distributed.leader import Leader, resumes
from multiseg.training.events import Progress
from multiseg.training.live import LiveProgress
from multiseg.training.loop import Loop
from multiseg.training.plan import Plan
from multiseg.training.preparation import (
    check_used,
    check_whole_images,
    export,
    layout_of,
    load,
    network_spec,
    plan_of,
    set_initial_weights,
)
from multiseg.training.ranks import Ranks
from multiseg.training.signals import Stop, listening
from multiseg.training.steps import readers_for
from multiseg.training.tensorboard import Log as TensorBoardLog
from multiseg.worker import pool
from multiseg.worker.client import Worker


def train(
    settings: Settings,
    dataset: Dataset,
    folder: Path,
    seed: int | None,
    resume: bool,
    skip_damaged: bool,
    progress: bool | Progress,
    tensorboard: bool,
    stop: Stop,
    ranks: Ranks,
) -> Run:
    """Train into ``folder`` and return its Run; see Job.train. ``seed`` is the requested one, None if the job has none."""
    module = ranks.network_module(settings.backend)
    ranks.check_batch_size(settings.batch_size)
    resumed, finished = None, False
    if resume or resumes(ranks, folder):
        resumed, settings, finished = _reopened(settings, dataset, folder, seed, skip_damaged)
    if finished and ranks.size == 1:
        return Run.open(folder)
    layout = layout_of(settings, dataset)
    spec = network_spec(settings, dataset)
    run = resumed or RunFolder.create(folder)
    with ExitStack() as stack:
        stack.enter_context(run.locked())
        stack.enter_context(run.failing())
        stack.enter_context(listening(stop))
        spec = _with_file_of_run(spec, settings, run)
        worker = stack.enter_context(pool.start(settings.backend, settings.threads, run.path / names.WORKER_LOG))
        settings, spec, described = load(worker, settings, spec, module, keep_loss=run.has_own_loss)
        leader = Leader(ranks, worker)
        stack.enter_context(leader.telling())
        if finished:
            return Run.open(folder)
        loaded = LoadedSettings.of(settings, described)
        ranks.check_batch_size(loaded.batch_size)
        plan = plan_of(loaded, dataset)
        check_labels(settings.model.name, dataset, described, settings.ignore_index)
        if not run.born:
            check_used(settings, dataset, described)
            _check_dataset(loaded, dataset, layout, worker, ranks)
        warm_start.check_frozen(loaded.freeze, described["parameters"])
        if settings.recipe == "equal":
            set_initial_weights(worker, settings, spec, described)
        transferred = _start(loaded, plan, worker, spec, run) if loaded.weights else None
        zero, notes = [], []
        if not run.born:
            zero, notes = _layers_at_zero(worker, spec, described["trained"]), reading.notes_of_file(settings.model)
            _copy_model(settings.model, run.path / names.MODEL, () if settings.exported else described["files"])
        if not run.born or run.restarts:
            run_environment = environment.of(worker.probed, settings.threads, ranks.size)
            run.start(loaded, dataset, layout, run_environment, transferred)
        report = stack.enter_context(_reporting(run, progress, tensorboard))
        readers = stack.enter_context(readers_for(loaded, ranks))
        Loop(loaded, plan, dataset, layout, worker, run, report, stop, leader, readers).run(transferred, zero, notes)
    return Run.open(folder)


def _reopened(
    settings: Settings, dataset: Dataset, folder: Path, seed: int | None, skip_damaged: bool
) -> tuple[RunFolder, Settings, bool]:
    """Return the run to resume, its settings, and whether it is finished."""
    run = RunFolder.resume(folder)
    goes_back = False
    if skip_damaged:
        with run.locked():
            goes_back = remove_damaged(folder)
    settings = run.complete(settings, dataset.content_hash, seed)
    finished = run.finished and not goes_back
    if finished and (last := run.last_snapshot()):
        last.verify()
    return run, settings, finished


def _with_file_of_run(spec: NetworkSpec, settings: Settings, run: RunFolder) -> NetworkSpec:
    """Return the network with the file that the run has of it; an exported one is written first."""
    copy = run.path / names.MODEL / (settings.exported or settings.model.name)
    if settings.exported:
        if not run.born:
            export(settings, spec, copy)
        return replace(spec, model=str(copy))
    if run.born and copy.exists():
        # the same as the model, with all files that belong to it, which may be gone
        return replace(spec, model=str(copy.resolve()))
    return spec


def _check_dataset(settings: LoadedSettings, dataset: Dataset, layout: Layout, worker: Worker, ranks: Ranks) -> None:
    """Raise an error if the network cannot learn from the dataset. It is of a new run: this reads labels and whole images."""
    network = settings.network
    if network.get("classes") is not None:
        check_classes(dataset, network["classes"], ignored(network, dataset.labels))
    label_counts.check_equal(settings, dataset, layout, worker, ranks.size)
    check_whole_images(worker, settings, dataset, layout)


def _layers_at_zero(worker: Worker, spec: NetworkSpec, trained: Collection[str]) -> list[str]:
    """Return the layers that cannot learn because they begin at zero."""
    return zero_start.layers_at_zero(
        worker.call("get_weights"),
        trained,
        lambda: reading.describe(spec.model, spec.input_shape, worker),
    )


def _start(settings: LoadedSettings, plan: Plan, worker: Worker, spec: NetworkSpec, run: RunFolder) -> dict[str, Any]:
    """Load the job's start weights into the network, and return the summary; see warm_start.start_from.

    Raises RunError if a run that was interrupted before its first snapshot would start from another snapshot than before.
    """
    assert settings.weights is not None
    stored = run.transferred if run.born else None
    if stored and run.last_snapshot() is not None:
        return stored
    rate = settings.schedule.rate(settings.learning_rate, 0, plan.iterations)
    job = warm_start.Beginning(worker, spec, settings.network, rate)
    summary = warm_start.start_from(settings.weights, job, settings.solver_state)
    if stored and stored["snapshot"] != summary["snapshot"]:
        raise RunError(
            f"{settings.weights}: was at {stored['snapshot']} when {run.path} began, and is at {summary['snapshot']} now; "
            "train again into another folder"
        )
    return summary


def _copy_model(model: Path, folder: Path, more: Iterable[str]) -> None:
    make_folder(folder)
    copies.copy(model, folder, more)
    sync_tree(folder)  # before job.json names it
    sync_one(folder.parent)


@contextmanager
def _reporting(run: RunFolder, progress: bool | Progress, tensorboard: bool) -> Iterator[Progress]:
    """Yield what reports the events of a training: to the files that others watch, to the user, and to TensorBoard."""
    with ExitStack() as stack:
        reports: list[Progress] = [LiveProgress(run.path)]
        if callable(progress):
            reports.append(progress)
        elif progress:
            from multiseg.training.progress import Bar

            reports.append(stack.enter_context(Bar()))
        if tensorboard:
            reports.append(stack.enter_context(TensorBoardLog(run.path / names.TENSORBOARD)))

        def report(event: dict[str, Any]) -> None:
            for each in reports:
                each(event)

        yield report
