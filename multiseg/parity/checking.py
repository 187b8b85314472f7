"""check_parity: plan a check, and compare its networks."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multiseg.dataset import Dataset
from multiseg.errors import BackendUnavailable, ModelError, SettingsError, setting
from multiseg.exporting import onnx as onnx_export
from multiseg.files.scratch import TemporaryFolder
from multiseg.network import FLOAT32
from multiseg.parity import onnx_side
from multiseg.parity.check import Check, Progress
from multiseg.parity.golden import file as golden_file
from multiseg.parity.golden import keeping as golden_keeping
from multiseg.parity.golden.plan import GoldenPlan, refuse_conflicts
from multiseg.parity.images import count_of
from multiseg.parity.memory import freed_memory_kept
from multiseg.parity.plan import ParityPlan, Plan
from multiseg.parity.reduction import reducing
from multiseg.parity.result import Parity
from multiseg.parity.scheduling import compare_sides
from multiseg.worker import pool
from multiseg.worker.client import Worker

DEFAULTS: dict[str, Any] = {"steps": 20, "solver": "sgd", "subtract_mean": "pixel", "seed": 1}


def check_parity(
    dataset: Dataset | str | Path | None = None, backends: Sequence[str] | None = None,
    models: Sequence[str | Path] | str | Path | None = None, weights: Sequence[str | Path] | str | Path | None = None,
    steps: int | None = None, *, solver: str | None = None, solver_options: Mapping[str, float] | None = None,
    learning_rate: float | None = None, loss: str | None = None,
    loss_options: Mapping[str, float] | None = None,
    class_weights: str | Sequence[float] | None = None, batch_size: int | None = None,
    subtract_mean: str | None = None, divide_std: str | Sequence[float] | None = None,
    seed: int | None = None, device: str = "auto", threads: int = 0, lowering: bool = True,
    progress: Progress | None = None, classes: int | None = None, model_options: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = (), save: str | Path | None = None, against: str | Path | None = None,
    reduce: str | Path | None = None,
    images: int | str | None = None, precision: str = FLOAT32,
) -> Parity:  # fmt: skip
    """Check that networks compute and train equally: same weights, same batches of ``dataset``, each number against float64.

    ``models``: network files of any format, or run folders, ``classes``, ``model_options`` and ``outputs`` as in
    :func:`multiseg.describe`; default: the FCN of each backend. ``backends``: names of the backends
    that compute; default: all installed ones for a single model or none, each model's own for several. A single model is
    computed by every backend, and exported to those that cannot read it; by default, those that it cannot be exported to are left
    out with the reason. Of several models each is computed by its own backend, and the first also by the other ``backends``.
    A model may be an ONNX file that was exported from the first one with the same ``weights``: it is computed by onnxruntime,
    layer by layer, in prediction.

    The reference is the description of the first network, computed in float64 NumPy. Compared with it are: the output of each
    layer for the inputs that the layer had; the output end to end; the loss; the gradient of each parameter; the weights after
    each of ``steps`` (default: 20) steps of the recipe `equal` (``solver``, by default `sgd`, ``learning_rate`` etc. as in
    :class:`multiseg.Job`). Tolerances are bounds of the rounding to float32 (multiseg.reference.bounded). After the first
    difference of a side, stages that depend on it are not compared.

    ``loss``, ``loss_options`` and ``class_weights`` are as in :class:`multiseg.Job`; by default the loss is `l2`, or of class
    indices the network file's own.

    ``weights``: files or run folders: one for the first network, used for all, or one for each model, which are compared as
    well; default: random weights from ``seed``, by default 1 (multiseg.parity.start). ``subtract_mean`` is by default `pixel`.
    ``progress`` is called with a description of each step, by one thread at a time.

    ``images``: how many of the training images the layers' outputs are compared for, or `all`; default: those of the first batch.
    One batch is in memory at a time, and the image with the worst difference is kept (``worst_images``).

    ``save``: a golden file (.safetensors) to write: network, weights, batches, and all that the reference computes.
    ``against``: a golden file to check with instead of a dataset: the network in it is exported to each of the ``backends``, or
    each of the ``models`` is compared with it and computed with its weights. The file decides the settings of the training; those
    that are specified must be the same. The reference is computed again, and compared with the file (``recomputed``).

    ``precision``: `bf16` compares networks as a training step in bfloat16 computes them (PyTorch), with the bounds of bfloat16.

    ``reduce``: a new folder; of each side that differs, the smallest part that still does is written to a folder there, with a
    program that shows it without multiseg (docs/parity.md). The result's ``reduced`` describes the parts.

    Raises SettingsError, DatasetError, ModelError and BackendUnavailable if the networks cannot be compared at all.
    """
    requested: dict[str, Any] = {
        "steps": steps, "solver": solver, "solver_options": dict(solver_options or {}), "learning_rate": learning_rate,
        "loss": loss, "loss_options": dict(loss_options or {}), "class_weights": class_weights,
        "batch_size": batch_size, "subtract_mean": subtract_mean, "divide_std": divide_std, "seed": seed,
    }  # fmt: skip
    options = {
        "device": device, "threads": threads, "lowering": lowering, "classes": classes, "model_options": model_options,
        "outputs": outputs, "precision": precision,
    }  # fmt: skip
    parts, path = None if reduce is None else Path(reduce), None if save is None else Path(save)
    _check_alone(precision, {"save": save, "against": against, "reduce": reduce})
    if steps is not None and (not isinstance(steps, int) or steps < 0):
        raise SettingsError(f"{setting('steps', steps)}: must be an integer of at least 0")
    if parts is not None:
        reducing.check_folder(parts)
    if path is not None:
        golden_keeping.check_path(path)
    if images is not None and against is not None:
        raise SettingsError(
            f"{setting('images')} and {setting('against')}: specify one; a golden file has its own images"
        )
    files, exports = _divided(models, against, precision)
    sides = files, list(backends or []), _paths(weights)
    more_images = 0
    plan: Plan
    if against is not None:
        plan = _golden_plan(Path(against), dataset, path, requested, sides, options)
        steps, loss = plan.golden.steps, plan.golden.loss
    else:
        data = _opened(dataset)
        more_images = count_of(images, len(data.train))
        steps = DEFAULTS["steps"] if steps is None else steps
        chosen = {name: DEFAULTS.get(name) if value is None else value for name, value in requested.items()}
        del chosen["steps"]
        plan = ParityPlan(data, *sides, {**chosen, **options}, all_backends=not exports)
    with TemporaryFolder() as folder, freed_memory_kept():

        def begin(worker: Worker | None) -> Check:
            return Check(plan, steps, loss, folder.path, worker, _reporting(progress), more_images)

        # of a golden file only the ONNX files, unless other sides are specified
        exports_alone = against is not None and bool(exports) and not (files or backends)
        check = begin(None) if exports_alone else compare_sides(plan, begin, parts)
        _compare_exports(check, exports, threads)
        if not check.parity.sides:
            raise BackendUnavailable(f"{against}: no backend can compute it: {'; '.join(check.parity.left_out)}")
        if path is not None:
            check.keep(path)
        return check.parity


def _compare_exports(check: Check, exports: Sequence[Path], threads: int) -> None:
    """Compare ONNX files, computed by onnxruntime."""
    for export in exports:
        check.say(onnx_side.title(export))
        backend = onnx_export.writer()
        with pool.start(backend, threads) as worker:
            onnx_side.compare(check, export, backend, worker)


def _opened(dataset: Dataset | str | Path | None) -> Dataset:
    """Return the dataset of a check. Raises SettingsError if none is specified."""
    if dataset is None:
        raise SettingsError(
            f"{setting('dataset')}: is missing; specify it, or a golden file with {setting('against', example='FILE')}"
        )
    return dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)


def _reporting(progress: Progress | None) -> Progress:
    """Return a function that calls ``progress`` for one thread at a time."""
    reporting = threading.Lock()

    def report(text: str) -> None:
        if progress is not None:
            with reporting:
                progress(text)

    return report


def _golden_plan(
    against: Path, dataset: object, save: Path | None, requested: Mapping[str, Any],
    sides: tuple[list[Path], list[str], list[Path]], options: Mapping[str, Any],
) -> GoldenPlan:  # fmt: skip
    """Return the plan of a check against a golden file. Raises SettingsError for what it excludes."""
    if dataset is not None:
        raise SettingsError(
            f"{setting('dataset')} and {setting('against')}: specify one of them; a golden file has the batches that it needs"
        )
    if save is not None:
        raise SettingsError(f"{setting('save')} and {setting('against')}: specify one of them")
    golden = golden_file.read(against)
    refuse_conflicts(golden, requested)
    return GoldenPlan(golden, *sides, options)


def _check_alone(precision: str, others: Mapping[str, object]) -> None:
    """Raise SettingsError for arguments that are for float32 only, if the precision is another."""
    for name, value in others.items():
        if value is not None and precision != FLOAT32:
            raise SettingsError(
                f"{setting('precision', precision)} and {setting(name, str(value))}: specify one; golden files and parts are of "
                f"{FLOAT32}"
            )


def _divided(models: Any, against: object, precision: str) -> tuple[list[Path], list[Path]]:
    """Return the network files among the models, and the ONNX files that were exported from the first.

    Raises SettingsError if there is no network for ONNX files, or if they cannot be computed in the precision; ModelError if one
    does not exist.
    """
    paths = _paths(models)
    exports = [path for path in paths if path.suffix == f".{onnx_export.KIND}"]
    files = [path for path in paths if path not in exports]
    if exports and not files and against is None:
        raise SettingsError(
            f"{exports[0]}: an ONNX file is compared with the network that it was exported from; specify that as the first "
            f"{setting('model', example='FILE')}"
        )
    for path in exports:
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
    if exports and precision != FLOAT32:
        raise SettingsError(
            f"{setting('precision', precision)}: is not for ONNX files, which are computed in {FLOAT32}"
        )
    return files, exports


def _paths(names: Any) -> list[Path]:
    if names is None:
        return []
    return [Path(names)] if isinstance(names, (str, Path)) else [Path(each) for each in names]
