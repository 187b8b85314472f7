"""The text of a network file for another backend."""

from __future__ import annotations

import importlib
from pathlib import Path

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.errors import ModelError
from multiseg.topology import Topology


def check_name(path: Path, backend: str) -> Backend:
    """The backend called so. Raises BackendUnavailable where there is none, ModelError where its files are named otherwise."""
    target = registry.get(backend)
    if path.suffix != target.formats[0]:
        raise ModelError(f"{path}: a network file for {target.title} has a name ending in {target.formats[0]}")
    return target


def source(target: Backend, topology: Topology, classes: bool) -> str:
    """Return the text of a network file for the backend ``target``; with ``classes`` its loss takes class indices.

    Raises ModelError where the framework cannot express the network.
    """
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
