"""Return the text of a network file for another backend."""

from __future__ import annotations

import importlib
from pathlib import Path

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.errors import ModelError
from multiseg.topology import Topology


def check_name(path: Path, backend: str) -> Backend:
    """Return the backend of this name. Raises BackendUnavailable if unknown, ModelError if ``path`` has another extension."""
    target = registry.get(backend)
    if path.suffix != target.formats[0]:
        raise ModelError(f"{path}: the name of a network file for {target.title} must end in {target.formats[0]}")
    return target


def source(target: Backend, topology: Topology, classes: bool) -> str:
    """Return the text of a network file for the backend ``target``; with ``classes`` its loss takes class indices.

    Raises ModelError if the framework cannot express the network.
    """
    if target.exporter is None:
        raise ModelError(f"{topology.source}: backend {target.name!r} reads network files, but cannot write them")
    if sharing := topology.shared_weights:
        raise ModelError(
            f"{topology.source}: {target.title} cannot express it exactly; layers that share weights, or are computed several "
            f"times, would each get separate weights: {', '.join(sharing)}"
        )
    module, _, function = target.exporter.partition(":")
    text: str = getattr(importlib.import_module(module), function)(topology, classes)
    return text
