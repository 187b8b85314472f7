"""Resolve the settings that a user requests: check them, and complete them with the backend's defaults."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiseg.backend import Backend
from multiseg.dataset import Dataset
from multiseg.dataset.foreground import DARK
from multiseg.job.checking import checked, is_equal
from multiseg.model_files import choosing, shipped
from multiseg.settings import class_weights
from multiseg.settings.class_weights import with_label_max
from multiseg.settings.losses import complete_options
from multiseg.settings.request import JobRequest
from multiseg.settings.resolved import OWN_MEAN, Settings
from multiseg.settings.solvers import NEUTRAL_BATCH_SIZE
from multiseg.training.ranks import current


def resolved(job: JobRequest, dataset: Dataset | None) -> Settings:
    """Return the settings of a job, checked and completed; see Job.resolve."""
    parts = checked(job, dataset)
    backend, model, loss, crops = parts.backend, parts.model, parts.loss, parts.crops
    rate = job.learning_rate
    if rate is None:
        rate = parts.neutral.rate if parts.neutral else backend.learning_rate
    default_size = NEUTRAL_BATCH_SIZE if is_equal(job) else None
    of_dataset = None if dataset is None else dataset.labels.ignore
    ignored = {value for value in (job.ignore_index, of_dataset) if value is not None}
    return Settings(
        backend=backend,
        model=model.resolve(),
        origins=_origins(job, model, backend),
        exported=f"{model.stem}_{backend.name}{backend.formats[0]}" if parts.is_foreign else None,
        epochs=job.epochs,
        subtract_mean=OWN_MEAN if parts.mean is not None else job.subtract_mean or "pixel",
        mean=parts.mean,
        divide_std=job.divide_std
        if job.divide_std is None or isinstance(job.divide_std, str)
        else [float(value) for value in job.divide_std],
        recipe=job.recipe,
        learning_rate=float(rate),
        batch_size=job.batch_size or (1 if parts.mixed and crops.crop is None else default_size),
        val_batch_size=job.val_batch_size or (1 if parts.mixed and crops.val_crop is None else default_size),
        solver={"name": job.solver, **_solver_options(parts.solver_options, job.solver_options, rate)},
        multipliers={pattern: dict(factors) for pattern, factors in job.multipliers.items()},
        accumulate=job.accumulate,
        schedule=parts.schedule,
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
        augmentation=parts.augmentation,
        crop=crops.crop,
        val_crop=crops.val_crop,
        of_file=tuple(
            name
            for name, decides in (("crop", job.crop is None), ("augment", crops.mirror and "flip" not in job.augment))
            if decides
        ),
    )


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


def _threshold(job: JobRequest, dataset: Dataset | None) -> float:
    """Return the job's threshold of the foreground; by default that of the dataset."""
    if job.threshold is not None:
        return job.threshold
    return DARK.threshold if dataset is None else dataset.labels.foreground.threshold


def _solver_options(options: Mapping[str, Any], requested: Mapping[str, float], rate: float) -> dict[str, Any]:
    """Return all options of the solver: those of the recipe, whose weight decay may be per learning rate, and the requested."""
    defaults = dict(options)
    per_rate = defaults.pop("weight_decay_per_rate", 0.0)
    return {"weight_decay": per_rate * rate, **defaults, **requested}
