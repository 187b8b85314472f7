"""Resolve the settings that a user requests: check them, and complete them with the backend's defaults."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.dataset import Dataset
from multiseg.dataset.augmentation import Augmentation
from multiseg.dataset.cropping import CENTRE, NONE, Shape, Size, crop_problems, exceeds, read_size, written
from multiseg.dataset.fitting import batch_problems, is_mixed, mean_of, outputs_of, shapes_of, std_of
from multiseg.dataset.foreground import DARK
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.model_files import choosing, shipped
from multiseg.model_files.kinds import kind_of
from multiseg.model_files.reading import cropping_of_file, mean_of_file
from multiseg.network import CLASSES, IMAGES
from multiseg.schema import is_whole
from multiseg.settings import class_weights, requirements
from multiseg.settings.class_weights import with_label_max
from multiseg.settings.losses import NEUTRAL_LOSSES, complete_options, loss_problems
from multiseg.settings.request import JobRequest
from multiseg.settings.resolved import OWN_MEAN, Settings
from multiseg.settings.schedules import Schedule
from multiseg.settings.solvers import NEUTRAL, NEUTRAL_BATCH_SIZE, multiplier_problems, option_problems
from multiseg.settings.step import step_problems
from multiseg.training.ranks import current

Value = TypeVar("Value")


def resolved(job: JobRequest, dataset: Dataset | None) -> Settings:
    """Return the settings of a job, checked and completed; see Job.resolve."""
    requirements.check_kinds(job)
    backend = registry.get(job.backend)
    equal = job.recipe == "equal"
    neutral = NEUTRAL.get(job.solver) if equal else None
    loss = _neutral_loss(job, dataset) if equal and job.loss is None else job.loss
    options: dict[str, Any] = dict(neutral.options if neutral else backend.solvers.get(job.solver, {}))
    model = _model(job, backend, dataset)
    foreign = _foreign(model, backend) if model.exists() else None
    problems = [
        *requirements.problems(job),
        *_solver_problems(job, backend, options),
        *_loss_problems(job, loss, backend, dataset),
        *multiplier_problems(job.multipliers),
        *_weights_problems(job),
        *_label_problems(job, dataset, loss),
    ]
    if not model.exists():
        problems.append(f"{setting('model', str(model))}: no such file")
    elif foreign and backend.exporter is None:
        problems.append(f"{setting('model', str(model))}: {foreign}")
    schedule = _attempt(problems, lambda: Schedule.of(job.lr_policy))
    crops = _crops_of_job(job, model, dataset, problems)
    augment = {"flip": "horizontal", **job.augment} if crops.mirror else job.augment
    augmentation = _attempt(problems, lambda: Augmentation.of(augment))
    mean = _mean_of_job(job, model, problems)
    if dataset is not None:
        problems += _dataset_problems(job, dataset, augmentation, mean, crops)
    mixed = dataset is not None and is_mixed(dataset)
    problems += step_problems(job.compile, job.precision, backend, mixed and crops.crop is None)
    if problems or schedule is None or augmentation is None:
        raise SettingsError("; ".join(problems))

    rate = job.learning_rate
    if rate is None:
        rate = neutral.rate if neutral else backend.learning_rate
    default_size = NEUTRAL_BATCH_SIZE if equal else None
    of_dataset = None if dataset is None else dataset.labels.ignore
    ignored = {value for value in (job.ignore_index, of_dataset) if value is not None}
    return Settings(
        backend=backend,
        model=model.resolve(),
        origins=_origins(job, model, backend),
        exported=f"{model.stem}_{backend.name}{backend.formats[0]}" if foreign else None,
        epochs=job.epochs,
        subtract_mean=OWN_MEAN if mean is not None else job.subtract_mean or "pixel",
        mean=mean,
        divide_std=job.divide_std
        if job.divide_std is None or isinstance(job.divide_std, str)
        else [float(value) for value in job.divide_std],
        recipe=job.recipe,
        learning_rate=float(rate),
        batch_size=job.batch_size or (1 if mixed and crops.crop is None else default_size),
        val_batch_size=job.val_batch_size or (1 if mixed and crops.val_crop is None else default_size),
        solver={"name": job.solver, **_solver_options(options, job.solver_options, rate)},
        multipliers={pattern: dict(factors) for pattern, factors in job.multipliers.items()},
        accumulate=job.accumulate,
        schedule=schedule,
        loss=loss,
        loss_options=complete_options(loss, with_label_max(loss, job.loss_options, dataset, ignored)),
        class_weights=class_weights.computed(job.class_weights, dataset, ignored),
        ignore_index=of_dataset if job.ignore_index is None else job.ignore_index,
        seed=random.SystemRandom().randrange(2**31) if job.seed is None else job.seed,
        device=job.device,
        threads=job.threads or current().threads,
        data_workers=job.data_workers,
        image_cache=job.image_cache,
        lowering=job.lowering,
        compile=job.compile,
        precision=job.precision,
        val_interval=job.val_interval,
        snapshot_interval=job.snapshot_interval,
        keep=job.keep,
        metric=job.metric,
        threshold=_threshold(job, dataset),
        patience=job.patience,
        min_delta=job.min_delta,
        weights=None if job.weights is None else Path(job.weights).resolve(),
        solver_state=job.solver_state,
        freeze=tuple(job.freeze),
        augmentation=augmentation,
        crop=crops.crop,
        val_crop=crops.val_crop,
        of_file=tuple(
            name
            for name, decides in (("crop", job.crop is None), ("augment", crops.mirror and "flip" not in job.augment))
            if decides
        ),
    )


def _neutral_loss(job: JobRequest, dataset: Dataset | None) -> str | None:
    """Return the loss of the recipe `equal`.

    For class indices it is None: the network decides how it reads them, see training.preparation.load, unless class weights are
    requested, which a cross entropy has.
    """
    if dataset is None or dataset.labels.kind != CLASSES:
        return NEUTRAL_LOSSES[IMAGES]
    return None if job.class_weights is None else NEUTRAL_LOSSES[CLASSES]


def _loss_problems(job: JobRequest, loss: str | None, backend: Backend, dataset: Dataset | None) -> list[str]:
    """Return the problems of the loss, its parameters and class weights, alone or with the labels of the dataset."""
    problems = loss_problems(loss, job.loss_options, backend)
    if problems:
        return problems
    problems = class_weights.weight_problems(job.class_weights, loss)
    if problems or loss is None or dataset is None:
        return problems
    return class_weights.dataset_problems(dataset, loss, job.class_weights, backend.losses)


def _model(job: JobRequest, backend: Backend, dataset: Dataset | None) -> Path:
    """Return the path of the job's network file; one chosen by name, or by default, has as many outputs as the labels need."""
    outputs = channels = None
    classes = dataset is not None and dataset.labels.kind == CLASSES
    # without a named loss, the default network compares class indices with its one output, as numbers
    if dataset is not None and not (classes and job.model is None and job.loss is None):
        outputs, channels = outputs_of(dataset)
    if job.model is None:
        model = shipped.of_default(backend, job.classes or outputs, channels)
        return choosing.with_outputs(model, job.outputs) if job.outputs else model
    if job.classes is None and not classes and shipped.find(job.model) is None:
        outputs = None  # the channels of label images are no number of classes
    return choosing.path_of(
        job.model, backend, job.classes or outputs, channels, job.model_options,
        required=job.classes is not None, outputs=job.outputs,
    )  # fmt: skip


def _origins(job: JobRequest, model: Path, backend: Backend) -> dict[str, str]:
    """Return the name of the job's network, for job.json, if the network file is a copy for this job."""
    if job.model is not None:
        named = shipped.find(job.model)
        if named is None:
            word = choosing.word_of(model)
            return {} if word is None else {"model": word}
    else:
        named = None if model == backend.default_model_path else shipped.of_file(model.name)
    return {} if named is None else {"model": named.name}


def _label_problems(job: JobRequest, dataset: Dataset | None, loss: str | None) -> list[str]:
    """Return the problem of a network chosen by name whose own loss does not accept the dataset's kind of labels."""
    model = shipped.find(job.model)
    if model is None or dataset is None or loss is not None or model.labels == dataset.labels.kind:
        return []
    if model.labels == CLASSES:
        fix = f"create the dataset with {setting('labels', 'classes')}, or specify a loss of images with {setting('loss')}"
        return [
            f"{setting('model', model.name)}: its own loss compares class indices, and the labels are images; {fix}"
        ]
    fix = f"specify a loss of class indices with {setting('loss')}"
    return [f"{setting('model', model.name)}: its own loss compares images, and the labels are class indices; {fix}"]


def _threshold(job: JobRequest, dataset: Dataset | None) -> float:
    """Return the job's threshold of the foreground; by default that of the dataset."""
    if job.threshold is not None:
        return job.threshold
    return DARK.threshold if dataset is None else dataset.labels.foreground.threshold


def _attempt(problems: list[str], make: Callable[[], Value]) -> Value | None:
    """Return the result of ``make``; if it raises SettingsError, append the message to ``problems`` and return None."""
    try:
        return make()
    except SettingsError as error:
        problems.append(error.template)
        return None


def _solver_problems(job: JobRequest, backend: Backend, options: Mapping[str, Any]) -> list[str]:
    """Return the problems of the solver and its options; ``options`` are those of the recipe."""
    usable = tuple(name for name in backend.solvers if name in NEUTRAL or job.recipe != "equal")
    problems = []
    if job.solver not in usable:
        problems.append(f"{setting('solver', job.solver)}: choose one of {', '.join(usable)}")
    valid_options = {*options, "weight_decay"} - {"weight_decay_per_rate"}
    problems += [
        f"{setting('solver')} {job.solver!r} of {backend.name} has no option {key!r}; "
        f"it takes: {', '.join(sorted(valid_options))}"
        for key in job.solver_options
        if key not in valid_options
    ]
    return problems + option_problems(job.solver, job.solver_options)


def _solver_options(options: Mapping[str, Any], requested: Mapping[str, float], rate: float) -> dict[str, Any]:
    """Return all options of the solver: those of the recipe, whose weight decay may be per learning rate, and the requested."""
    defaults = dict(options)
    per_rate = defaults.pop("weight_decay_per_rate", 0.0)
    return {"weight_decay": per_rate * rate, **defaults, **requested}


def _weights_problems(job: JobRequest) -> list[str]:
    problems = []
    # a TensorFlow checkpoint is specified by its prefix
    if job.weights is not None and not any(Path(f"{job.weights}{suffix}").exists() for suffix in ("", ".index")):
        problems.append(f"{setting('weights', str(job.weights))}: no such file or run folder")
    if job.solver_state and job.weights is None:
        problems.append(
            f"{setting('solver_state', True)}: requires weights to start from; specify them with {setting('weights')}"
        )
    return problems


def _mean_of_job(job: JobRequest, model: Path, problems: list[str]) -> list[float] | None:
    """Return the job's own mean, else the network file's if the job leaves the mean open; None for a mean of the dataset."""
    if job.mean is not None:
        if job.subtract_mean is not None:
            problems.append(f"{setting('mean')} and {setting('subtract_mean')}: specify one of them")
        return [float(value) for value in job.mean] if requirements.REQUIREMENTS["mean"].holds(job.mean) else None
    if job.subtract_mean is not None or not model.exists():
        return None
    try:
        return mean_of_file(model)
    except ModelError as error:
        problems.append(error.template)
        return None


@dataclass(frozen=True)
class _Crops:
    """The sizes of training crops and of central crops in validation, None for whole images, and whether the file mirrors."""

    crop: Size | None = None
    val_crop: Size | None = None
    mirror: bool = False


def _crops_of_job(job: JobRequest, model: Path, dataset: Dataset | None, problems: list[str]) -> _Crops:
    """Return the crops that the job specifies, else those of the network file."""
    try:
        stated = cropping_of_file(model)
    except ModelError as error:
        problems.append(error.template)
        return _Crops()
    of_file, val_of_file = ((stated[key], stated[key]) if stated[key] else None for key in ("crop", "val_crop"))
    if job.crop is None:
        crop, val_crop = of_file, val_of_file
    else:
        crop = read_size(job.crop) if requirements.REQUIREMENTS["crop"].holds(job.crop) else None
        whole = (
            dataset is not None and dataset.train.label_shape is not None and dataset.train.label_shape[1:] == (1, 1)
        )
        val_crop = crop if val_of_file or whole else None
    if job.val_crop == NONE:
        val_crop = None
    elif job.val_crop == CENTRE:
        val_crop = val_crop or crop
        if val_crop is None and (job.crop is None or job.crop == NONE):
            problems.append(f"{setting('val_crop', CENTRE)}: requires the size of a crop; specify {setting('crop')}")
    return _Crops(crop, val_crop, bool(stated["mirror"]))


def _crop_problems(dataset: Dataset, crops: _Crops, shapes: tuple[Shape, Shape], of_file: bool) -> list[str]:
    """Return the problems of cropping the images of a dataset, whose first has ``shapes``."""
    problems = crop_problems("crop", crops.crop, *shapes)
    image = shapes[0][1:]
    if of_file and crops.crop is not None and not is_mixed(dataset) and exceeds(crops.crop, image):
        problems.append(
            f"crop_size {crops.crop[0]} of the network file is larger than the images ({written(image)}, height x width), which "
            f"Caffe does not allow; specify {setting('crop', written(crops.crop))} to fill images up, or a smaller crop"
        )
    val_shape = dataset.val.shape if len(dataset.val) else None
    if crops.val_crop is not None and val_shape is not None and exceeds(crops.val_crop, val_shape[1:]):
        problems.append(
            f"{setting('val_crop', CENTRE)}: the crop of {written(crops.val_crop)} is larger than the validation images "
            f"({written(val_shape[1:])}, height x width); choose a smaller {setting('crop')}, or {setting('val_crop', NONE)}"
        )
    return problems


def _dataset_problems(
    job: JobRequest, dataset: Dataset, augmentation: Augmentation | None, mean: list[float] | None, crops: _Crops
) -> list[str]:
    """Return the settings that are incompatible with the dataset."""
    problems: list[str] = []
    shapes = _attempt(problems, lambda: shapes_of(dataset))
    if shapes is not None and augmentation is not None and crops.crop is None:
        problems += augmentation.misfits(*shapes)
    if shapes is not None:
        problems += _crop_problems(dataset, crops, shapes, job.crop is None)
    _attempt(problems, lambda: mean_of(dataset, job.subtract_mean or "pixel", mean))
    if requirements.REQUIREMENTS["divide_std"].holds(job.divide_std) and not isinstance(job.divide_std, str):
        _attempt(problems, lambda: std_of(dataset, job.divide_std))
    values = {"batch_size": job.batch_size, "accumulate": job.accumulate} if crops.crop is None else {}
    problems += batch_problems(dataset, values | ({} if crops.val_crop else {"val_batch_size": job.val_batch_size}))
    count = len(dataset.train)
    if job.batch_size is not None and is_whole(job.batch_size) and is_whole(job.accumulate):
        times = f" x {setting('accumulate', job.accumulate)}" if job.accumulate > 1 else ""
        if job.batch_size * job.accumulate > count > 0:
            problems.append(
                f"{setting('batch_size', job.batch_size)}{times}: is larger than the dataset, {count} training images"
            )
    if job.patience is not None and not len(dataset.val):
        problems.append(
            f"{setting('patience', job.patience)}: {dataset.path} has no validation images, which early stopping requires"
        )
    return problems


def _foreign(model: Path, backend: Backend) -> str | None:
    """Return a message naming the backend that a model belongs to; None if it is this backend's, or of an unknown kind."""
    try:
        owner, kind = kind_of(model, "network")
    except ModelError:  # the backend's own error is more precise
        return None
    if owner.name == backend.name:
        return None
    loadable = ", ".join(
        f"{kind.name} ({', '.join(kind.extensions)})" for kind in backend.kinds if kind.holds == "network"
    )
    return f"is a {kind.name}, which backend {owner.name} loads; backend {backend.name} loads: {loadable}"
