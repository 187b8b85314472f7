"""Check the settings that a user requests, together, with the backend, the network file and the dataset."""

from __future__ import annotations

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
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.model_files import choosing, shipped
from multiseg.model_files.kinds import kind_of
from multiseg.model_files.reading import cropping_of_file, mean_of_file
from multiseg.network import CLASSES, IMAGES
from multiseg.schema import is_whole
from multiseg.settings import class_weights, requirements
from multiseg.settings.losses import NEUTRAL_LOSSES, loss_problems
from multiseg.settings.request import JobRequest
from multiseg.settings.schedules import Schedule
from multiseg.settings.solvers import NEUTRAL, Neutral, multiplier_problems, option_problems
from multiseg.settings.step import step_problems

Value = TypeVar("Value")


@dataclass(frozen=True)
class Crops:
    """The sizes of training crops and of central crops in validation, None for whole images, and whether the file mirrors."""

    crop: Size | None = None
    val_crop: Size | None = None
    mirror: bool = False


@dataclass(frozen=True)
class Checked:
    """What the settings of a job follow from, without problems."""

    backend: Backend
    neutral: Neutral | None  # the solver of the recipe equal, None for another recipe
    loss: str | None
    solver_options: Mapping[str, Any]  # of the recipe
    model: Path
    is_foreign: bool  # the network file belongs to another backend
    schedule: Schedule
    augmentation: Augmentation
    mean: list[float] | None
    crops: Crops
    mixed: bool  # images of different sizes


def checked(job: JobRequest, dataset: Dataset | None) -> Checked:
    """Return what the settings follow from. Raises one SettingsError that lists all problems."""
    requirements.check_kinds(job)
    backend = registry.get(job.backend)
    neutral = NEUTRAL.get(job.solver) if is_equal(job) else None
    loss = _neutral_loss(job, dataset) if is_equal(job) and job.loss is None else job.loss
    options: Mapping[str, Any] = neutral.options if neutral else backend.solvers.get(job.solver, {})
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
        names = "" if model.suffix else f", and no network is called so; known are: {', '.join(shipped.MODELS)}"
        problems.append(f"{setting('model', str(model))}: no such file{names}")
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
        raise SettingsError("; ".join(dict.fromkeys(problems)))  # a file that cannot be read is a problem of each use
    return Checked(
        backend, neutral, loss, options, model, foreign is not None, schedule, augmentation, mean, crops, mixed
    )


def is_equal(job: JobRequest) -> bool:
    """Return whether a job is of the recipe `equal`."""
    return job.recipe == "equal"


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


def _attempt(problems: list[str], make: Callable[[], Value]) -> Value | None:
    """Return the result of ``make``; if it raises SettingsError, append the message to ``problems`` and return None."""
    try:
        return make()
    except SettingsError as error:
        problems.append(error.template)
        return None


def _solver_problems(job: JobRequest, backend: Backend, options: Mapping[str, Any]) -> list[str]:
    """Return the problems of the solver and its options; ``options`` are those of the recipe."""
    usable = tuple(name for name in backend.solvers if name in NEUTRAL or not is_equal(job))
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


def _crops_of_job(job: JobRequest, model: Path, dataset: Dataset | None, problems: list[str]) -> Crops:
    """Return the crops that the job specifies, else those of the network file."""
    try:
        stated = cropping_of_file(model)
    except ModelError as error:
        problems.append(error.template)
        return Crops()
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
    return Crops(crop, val_crop, bool(stated["mirror"]))


def _crop_problems(dataset: Dataset, crops: Crops, shapes: tuple[Shape, Shape], of_file: bool) -> list[str]:
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
    job: JobRequest, dataset: Dataset, augmentation: Augmentation | None, mean: list[float] | None, crops: Crops
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
