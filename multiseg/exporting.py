"""Writing a network as another framework's own source file: described neutrally first, then put into that framework's words.

A backend's exporter is a function ``source(topology, classes)`` that gives the file's text. ``classes`` says whether labels
are class numbers: the file's loss is their cross entropy then, else the backend's own loss of images. It raises ModelError
naming the layers that the framework cannot express; it imports no framework.
"""

from __future__ import annotations

import importlib
import math
from pathlib import Path

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.errors import ModelError
from multiseg.files import write_text
from multiseg.model_files import describe
from multiseg.topology import Shape, Topology


def export(
    network: str | Path | Topology, backend: str, out: str | Path,
    input_shape: tuple[int, int, int] | None = None, label_shape: tuple[int, int, int] | None = None,
) -> Path:  # fmt: skip
    """Write a network file (or a described network) as ``backend``'s own source, and return its path.

    ``input_shape`` (C, H, W) is as in :func:`multiseg.describe`; the file is right for images of this size, and says where it
    may not be for others. Weights and start values are not part of it. The file's loss is the backend's own one of images, or
    the cross entropy of class numbers: where labels of ``label_shape`` are such, or without it where the network's own loss is
    one, or its output no image.

    Raises BackendUnavailable for an unknown backend, and ModelError naming every layer that it cannot express; nothing is
    written then.
    """
    path = Path(out)
    target = check_name(path, backend)
    topology = network if isinstance(network, Topology) else describe(network, input_shape)
    write_text(path, source(target, topology, of_classes(topology, label_shape)))
    return path


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
