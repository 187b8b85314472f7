"""The text of a network file for another backend."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.errors import ModelError
from multiseg.topology import Shape, Topology


def check_name(path: Path, backend: str) -> Backend:
    """The backend called so. Raises BackendUnavailable where there is none, ModelError where its files are named otherwise."""
    target = registry.get(backend)
    if path.suffix != target.formats[0]:
        raise ModelError(f"{path}: a network file for {target.title} has a name ending in {target.formats[0]}")
    return target


def source(target: Backend, topology: Topology, classes: bool) -> str:
    """The text of a network file for the backend ``target``. Raises ModelError where it cannot be."""
    if target.exporter is None:
        raise ModelError(f"{topology.source}: backend {target.name!r} reads network files, but writes none")
    if several := topology.shared_weights:
        raise ModelError(
            f"{topology.source}: {target.title} cannot express it exactly; layers that share weights, or are computed several "
            f"times, would get weights of their own: {', '.join(several)}"
        )
    module, _, function = target.exporter.partition(":")
    text: str = getattr(importlib.import_module(module), function)(topology, classes)
    return text


def of_classes(topology: Topology, label_shape: Shape | None = None) -> bool:
    """Whether labels are class numbers: by their shape (C, H, W) beside the output's; without it by the network's own loss,
    and where its output is no image."""
    output = topology.shapes[topology.outputs[0]]
    if label_shape is not None:
        return output != label_shape and math.prod(output) > 1 and label_shape[0] == 1
    loss = topology.loss or ""
    return ("softmax" in loss and "cross-entropy" in loss) or "class numbers" in loss or len(output) == 1
