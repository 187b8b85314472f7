"""Make a golden file of a check's reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from multiseg.errors import ModelError, SettingsError, setting
from multiseg.files import target
from multiseg.network import NetworkSpec
from multiseg.parity.golden import file as golden_file
from multiseg.parity.golden.golden import Golden
from multiseg.parity.golden.values import Recipe, computed
from multiseg.parity.plan import Plan
from multiseg.reference import NotComputable
from multiseg.reference.bounded import Array

Progress = Callable[[str], None]
SUFFIX = ".safetensors"


def check_path(path: Path) -> None:
    """Raise SettingsError if no golden file can be written to ``path``, before anything is computed for it."""
    if path.suffix != SUFFIX:
        raise SettingsError(f"{setting('save', str(path))}: a golden file has a name ending in {SUFFIX}")
    target(path)


def keep(path: Path, plan: Plan, recipe: Recipe, classes: bool, spec: NetworkSpec, progress: Progress) -> str:
    """Write the golden file of a reference and return a note about it; ``spec`` has the loss of the check.

    Raises ModelError if the reference cannot be computed.
    """
    progress(f"the reference for {path.name}")
    try:
        values = computed(recipe, progress)
    except NotComputable as error:
        raise ModelError(
            f"{path}: is not written, because the reference of {recipe.topology.source} is incomplete: {error}"
        ) from error
    features, labels, batches = _images(path, plan, max(recipe.steps, 1))
    golden = Golden(
        path, recipe.topology, classes, _settings(plan, recipe, spec), recipe.weights, tuple(recipe.trained),
        features, labels, batches, plan.mean, plan.std, values,
    )  # fmt: skip
    size = golden_file.write(golden)
    without = f"; not in it: training, because {values.left_out}" if values.left_out else ""
    return (
        f"{path} has the float64 reference of {recipe.topology.source}, which does not depend on what the frameworks compute "
        f"({size / 1e6:.2g} MB){without}"
    )


def _settings(plan: Plan, recipe: Recipe, spec: NetworkSpec) -> dict[str, Any]:
    """Return the settings that a check with the file may not change, as plain values."""
    settings = plan.entries[0].settings
    return {
        "solver": dict(recipe.solver),
        "learning_rate": recipe.learning_rate,
        "steps": recipe.steps,
        "batch_size": len(plan.batch(0).features),
        "seed": settings.seed,
        "loss": spec.loss,
        "loss_options": dict(spec.loss_options),
        "class_weights": list(spec.class_weights),
        "ignore_index": spec.ignore_index,
        "labels": plan.label_kind,
        "label_shape": list(spec.label_shape),
        "subtract_mean": settings.subtract_mean,
        "divide_std": settings.divide_std,
    }


def _images(path: Path, plan: Plan, count: int) -> tuple[Array, Array, Array]:
    """Return the different images and labels of the first ``count`` batches, and their indices in each batch."""
    places: dict[tuple[bytes, bytes], int] = {}
    features: list[Array] = []
    labels: list[Array] = []
    batches = []
    for step in range(count):
        batch = plan.batch(step)
        indices = []
        for image, label in zip(batch.features, batch.labels, strict=True):
            key = image.tobytes(), label.tobytes()
            if key not in places:
                places[key] = len(features)
                features.append(image)
                labels.append(label)
            indices.append(places[key])
        batches.append(indices)
    if len({(image.shape, label.shape) for image, label in zip(features, labels, strict=True)}) > 1:
        raise ModelError(f"{path}: is not written, because the images of the dataset differ in size")
    return np.stack(features), np.stack(labels), np.array(batches, np.int64)
