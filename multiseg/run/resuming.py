"""Whether settings are those of an interrupted run, and what they take over from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from multiseg.errors import RunError, setting
from multiseg.model_files import copies
from multiseg.run.names import MODEL
from multiseg.run.reading import read_job
from multiseg.settings.resolved import Settings

FREE = ("epochs", "threads", "device")  # may differ when a run is resumed; epochs have an error of their own


def completed(path: Path, settings: Settings, content_hash: str, seed: int | None) -> Settings:
    """Return the settings with the seed, batch sizes and loss that they leave open taken from the job.json in ``path``.

    ``content_hash`` is that of the dataset, ``seed`` the requested one, None if it is left open. Raises RunError where the run's
    settings, network file or dataset are other ones.
    """
    job = read_job(path)
    if job["dataset"]["content_hash"] != content_hash:
        raise RunError(f"{path}: was trained on another dataset ({job['dataset']['path']}); resume with that one")
    kept = job["settings"]
    if seed is not None and seed != kept["seed"]:
        raise RunError(
            f"{path}: was trained with {setting('seed', kept['seed'])}, not {seed}; resume with that one, or with none"
        )
    loss, loss_options = settings.loss, settings.loss_options
    if loss is None and not job["network"]["own_loss"]:
        loss, loss_options = kept["loss"], kept.get("loss_options", {})
    result = replace(
        settings,
        seed=kept["seed"],
        batch_size=settings.batch_size or kept["batch_size"],
        val_batch_size=settings.val_batch_size or kept["val_batch_size"],
        loss=loss,
        loss_options=loss_options,
    )
    model = path / MODEL / kept["model"]
    if settings.model.name == model.name and not copies.same(settings.model, model):
        raise RunError(f"{settings.model}: has changed since {path} began; the run's own copy is {model}")
    now = result.to_json()
    for key, value in kept.items():
        if key in now and now[key] is not None and key not in FREE and now[key] != value:
            raise RunError(
                f"{path}: was trained with {setting(key, value)}, not {now[key]!r}; resume with the same settings"
            )
    if now["epochs"] != kept["epochs"]:
        raise RunError(f"{path}: is a run of {kept['epochs']} epochs, not {now['epochs']}; the schedule depends on it")
    return result
