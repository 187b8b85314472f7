"""Training a job into a folder: everything from its settings to a finished Run; the loop itself is multiseg.loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiseg import backend as registry
from multiseg import environment, exporting, model_files, transfer
from multiseg.dataset import Dataset
from multiseg.errors import RunError, SettingsError
from multiseg.files import write_text
from multiseg.fitting import Shape, mean_of, shapes_of
from multiseg.initial import initial_weights
from multiseg.job import Job, Progress, Settings
from multiseg.layout import Layout
from multiseg.leading import Leader, resumes
from multiseg.loop import Loop
from multiseg.network import NetworkSpec
from multiseg.plan import Plan
from multiseg.ranks import Ranks
from multiseg.run import Run
from multiseg.run_folder import RunFolder
from multiseg.stopping import Stop, listening
from multiseg.tensorboard import Log as TensorBoardLog
from multiseg.tensorboard import require as require_tensorboard
from multiseg.worker.client import Worker


def train(
    job: Job, folder: Path, resume: bool, progress: bool | Progress, tensorboard: bool, stop: Stop, ranks: Ranks
) -> Run:
    """Train ``job`` into ``folder``; see Job.train."""
    registry.get(job.backend)  # an unknown backend is told before anything is opened
    dataset = job.dataset if isinstance(job.dataset, Dataset) else Dataset.open(job.dataset)
    settings = job.resolve(dataset)
    module = ranks.network_module(settings.backend)
    ranks.check_batch_size(settings.batch_size)
    if tensorboard:
        require_tensorboard()
    layout = layout_of(settings, dataset)
    resume = resume or resumes(ranks, folder)
    # fills in what is left open
    begun = RunFolder.resume(folder, settings, dataset.content_hash, job.seed) if resume else None
    finished = begun is not None and begun.finished
    if finished and ranks.size == 1:
        return Run.open(folder)
    spec = network_spec(settings, dataset)
    run = begun or RunFolder.create(folder)
    with ExitStack() as stack:
        stack.enter_context(run.locked())
        stack.enter_context(run.failing())
        stack.enter_context(listening(stop))
        if settings.exported:
            exported = run.path / "model" / settings.exported
            if not run.born:
                export(settings, spec, exported)
            spec = replace(spec, model=str(exported))
        worker = stack.enter_context(Worker(settings.backend, settings.threads, run.path / "worker.log"))
        described = worker.call("load", spec=spec.to_json(), module=module)
        leader = Leader(ranks, worker)
        stack.enter_context(leader.telling())
        if finished:
            return Run.open(folder)
        settings.describe(described)
        ranks.check_batch_size(settings.batch_size)
        plan = plan_of(settings, dataset)
        transfer.check_frozen(settings.freeze, described["parameters"])
        if settings.recipe == "equal":
            set_initial_weights(worker, settings, spec)
        transferred = _start(settings, plan, worker, spec, described, run) if settings.weights else None
        if not run.born:
            _copy_model(settings.model, run.path / "model")
            found = environment.of(worker.found, settings.threads, ranks.size)
            run.start(settings, dataset, layout.mean, described, found, transferred)
        report = stack.enter_context(_reporter(progress))
        if tensorboard:
            report = _both(report, stack.enter_context(TensorBoardLog(run.path / "tensorboard")))
        Loop(settings, plan, dataset, layout, worker, run, report, stop, leader).run(transferred)
    return Run.open(folder)


def layout_of(settings: Settings, dataset: Dataset) -> Layout:
    """How the backend gets this dataset's batches."""
    return Layout(
        settings.backend.data_order,
        settings.backend.channel_order,
        mean_of(dataset, settings.subtract_mean),
        colours=dataset.train.label_shape is not None and dataset.train.label_shape[0] == 3,
    )


def network_spec(settings: Settings, dataset: Dataset) -> NetworkSpec:
    """What the backend builds for these settings and this dataset. Raises SettingsError for mixed image sizes."""
    return spec_of(settings, *shapes_of(dataset))


def spec_of(settings: Settings, shape: Shape, label_shape: Shape) -> NetworkSpec:
    """What the backend builds for these settings and images and labels of these shapes (C, H, W)."""
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
        frozen=settings.freeze,
        recipe=settings.recipe,
        multipliers=settings.multipliers,
        accumulate=settings.accumulate,
    )


def set_initial_weights(worker: Worker, settings: Settings, spec: NetworkSpec) -> None:
    """Give the network in ``worker`` the initialisation that the recipe `equal` has for this seed."""
    weights = worker.call("get_weights")
    shapes = {name: value.shape for name, value in weights.items()}
    channels = (spec.input_shape[0], spec.label_shape[0])
    made = initial_weights(shapes, settings.seed, settings.backend.channel_order, channels)
    worker.call("set_weights", weights={**weights, **made})


def plan_of(settings: Settings, dataset: Dataset) -> Plan:
    """Raises SettingsError where the images of one update are more than the dataset has."""
    size, count = (settings.batch_size or 0) * settings.accumulate, len(dataset.train)
    if size > count:
        times = f" x accumulate={settings.accumulate}" if settings.accumulate > 1 else ""
        raise SettingsError(
            f"batch_size={settings.batch_size}{times}: is larger than the dataset, {count} training images; choose less"
        )
    return Plan(count, size, settings.epochs, settings.val_interval, settings.snapshot_interval)


def _start(
    settings: Settings, plan: Plan, worker: Worker, spec: NetworkSpec, described: dict[str, Any], run: RunFolder
) -> dict[str, Any]:
    """Let the network start from the job's weights, and tell what came of it.

    Raises RunError where an interrupted run, not yet at its first snapshot, would start from another snapshot than before.
    """
    assert settings.weights is not None
    kept = run.transferred if run.born else None
    if kept and run.last_snapshot() is not None:
        return kept
    rate = settings.schedule.rate(settings.learning_rate, 0, plan.iterations)
    job = transfer.Beginning(worker, spec, described, rate)
    found = transfer.start_from(settings.weights, job, settings.solver_state)
    if kept and kept["snapshot"] != found["snapshot"]:
        raise RunError(
            f"{settings.weights}: was at {kept['snapshot']} when {run.path} began, and is at {found['snapshot']} now; "
            "begin again in another folder"
        )
    return found


def export(settings: Settings, spec: NetworkSpec, path: Path) -> None:
    """Write a model of another backend's as this backend's own source. Raises ModelError."""
    topology = model_files.describe(settings.model, spec.input_shape)
    text = exporting.source(settings.backend, topology, exporting.of_classes(topology, spec.label_shape))
    path.parent.mkdir(exist_ok=True)
    write_text(path, text)


def _copy_model(model: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    model_files.copy(model, folder)


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


def _both(one: Progress, other: Progress) -> Progress:
    def report(event: dict[str, Any]) -> None:
        one(event)
        other(event)

    return report
