"""Resume an interrupted run: check the settings against its job.json, and take unset values from there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiseg.dataset.cropping import CENTRE, NONE
from multiseg.errors import RunError, setting
from multiseg.model_files import copies
from multiseg.run.names import JOB, MODEL
from multiseg.run.reading import read_job
from multiseg.settings.resolved import OF_MACHINE, OWN_MEAN, Settings
from multiseg.settings.step import DEFAULTS

RESTARTED = ("batch_size", "val_batch_size", "accumulate")  # may differ if the run has no snapshot, and starts again
# None is a value of its own, which does not take that of the run; it is that of runs before there was the setting
OPTIONAL = ("divide_std", "crop", "val_crop")
# may differ when a run is resumed; epochs have a separate error message
FREE = ("epochs", "device", *OF_MACHINE)

# settings that a command to resume may leave out, and that job.json has as a job states them
AS_STATED = (
    "backend", "epochs", "recipe", "learning_rate", "multipliers", "accumulate", "batch_size", "val_batch_size", "lr_policy",
    "lowering", "compile", "precision", "val_interval", "snapshot_interval", "keep", "threshold", "min_delta", "freeze",
    "augment", "divide_std",
)  # fmt: skip


def requested(path: Path) -> dict[str, Any]:
    """Return the settings of the run in ``path`` as a job states them; empty if it has no job.json."""
    if not (path / JOB).is_file():
        return {}
    job = read_job(path)
    stored = job["settings"]
    solver = dict(stored["solver"])
    mean = "mean" if stored["subtract_mean"] == OWN_MEAN else "subtract_mean"
    settings = {name: stored[name] for name in AS_STATED if name in stored}
    if not job["network"]["own_loss"]:
        weights = stored.get("class_weights") or None
        settings |= {"loss": stored["loss"], "loss_options": stored.get("loss_options", {}), "class_weights": weights}
    if stored.get("crop"):
        settings |= {"crop": stored["crop"], "val_crop": CENTRE if stored["val_crop"] else NONE}
    return {**settings, "solver": solver.pop("name"), "solver_options": solver, mean: stored[mean]}


def completed(
    path: Path, settings: Settings, content_hash: str, seed: int | None, free: Collection[str] = FREE
) -> Settings:
    """Return the settings with unset values (seed, batch sizes, loss, metric, patience, weights) taken from job.json in ``path``.

    ``content_hash`` is that of the dataset, ``seed`` the requested seed, None if it is unset; ``free`` are settings that may
    differ from those of the run. Raises RunError if the other settings, the network file or the dataset differ from those of the
    run.
    """
    job = read_job(path)
    if job["dataset"]["content_hash"] != content_hash:
        raise RunError(f"{path}: was trained on another dataset ({job['dataset']['path']}); resume with that dataset")
    stored = job["settings"]
    if seed is not None and seed != stored["seed"]:
        raise RunError(
            f"{path}: was trained with {setting('seed', stored['seed'])}, not {seed}; resume with the same seed, or without one"
        )
    if "mean" not in stored and settings.subtract_mean == OWN_MEAN:  # of a version that ignored the file's mean_value
        settings = replace(settings, subtract_mean=stored["subtract_mean"], mean=None)
    if "crop" not in stored and "crop" in settings.of_file:  # of a version that ignored the file's crop_size and mirror
        settings = replace(settings, crop=None, val_crop=None)
    if "crop" not in stored and "augment" in settings.of_file:
        settings = replace(settings, augmentation=replace(settings.augmentation, flip="none"))
    loss, loss_options = settings.loss, settings.loss_options
    if loss is None and not job["network"]["own_loss"]:
        loss, loss_options = stored["loss"], stored.get("loss_options", {})
    class_weights = settings.class_weights
    if "class_weights" in stored and settings.class_weights == () and settings.loss is None:
        class_weights = tuple(stored["class_weights"])
    completed_settings = replace(
        settings,
        seed=stored["seed"],
        batch_size=settings.batch_size or stored["batch_size"],
        val_batch_size=settings.val_batch_size or stored["val_batch_size"],
        loss=loss,
        loss_options=loss_options,
        class_weights=class_weights,
        ignore_index=stored.get("ignore_index") if settings.ignore_index is None else settings.ignore_index,
        metric=settings.metric or stored.get("metric"),
        patience=stored.get("patience") if settings.patience is None else settings.patience,
        weights=settings.weights or (Path(stored["weights"]) if stored.get("weights") else None),
        solver_state=stored.get("solver_state") if settings.solver_state is None else settings.solver_state,
    )
    model = path / MODEL / stored["model"]
    if settings.model.name == model.name:
        name = copies.changed(settings.model, model, stored.get("exported"))
        if name is not None:
            raise RunError(
                f"{settings.model.parent / name}: has changed since {path} began; the run's own copy is {model.parent / name}"
            )
    values = completed_settings.to_json()
    for key, value in {**dict.fromkeys(OPTIONAL), **DEFAULTS, **stored}.items():
        unset = key not in values or (values[key] is None and key not in OPTIONAL)
        if not unset and key not in free and values[key] != value:
            raise RunError(
                f"{path}: was trained with {setting(key, value)}, not {values[key]!r}; resume with the same settings"
            )
    if values["epochs"] != stored["epochs"]:
        raise RunError(
            f"{path}: is a run of {stored['epochs']} epochs, not {values['epochs']}; the schedule depends on it, "
            "so resume with the same number"
        )
    return completed_settings
