"""Writing a network as another framework's own source file: described neutrally first, then put into that framework's words.

A backend's exporter is a function ``source(topology, classes)`` that gives the file's text. ``classes`` says whether labels
are class numbers: the file's loss is their cross entropy then, else the backend's own loss of images. It raises ModelError
naming the layers that the framework cannot express; it imports no framework. Where the backend also writes ONNX, the same module
has ``names(topology)``: what the file calls each layer.
"""

from __future__ import annotations

import importlib
import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.errors import BackendUnavailable, ModelError, SettingsError
from multiseg.files import write_text
from multiseg.model_files import check_output, describe
from multiseg.topology import Shape, Topology

if TYPE_CHECKING:
    from multiseg.run import Run


def export(
    network: str | Path | Run | Topology, to: str, out: str | Path,
    input_shape: tuple[int, int, int] | None = None, label_shape: tuple[int, int, int] | None = None,
    weights: str | Path | Run | None = None,
) -> Path:  # fmt: skip
    """Write a network file (or a run's, or a described network) as ``to``'s own source or as ONNX, and return its path.

    ``to`` is a backend's name or ``onnx``. ``input_shape`` (C, H, W) is as in :func:`multiseg.describe`; the file is right for
    images of this size, and says where it may not be for others.

    A source has no weights. Its loss is the backend's own one of images, or the cross entropy of class numbers: where labels of
    ``label_shape`` are such, or without it where the network's own loss is one, or its output no image.

    An ONNX file has no loss. Its ``weights`` are those in a file of any backend's formats, or of another run of this network;
    by default the run's own, or those that the network file holds itself. See docs/migrate.md for how it is fed.

    Raises BackendUnavailable for an unknown backend, and ModelError naming every layer that it cannot express, or weights that
    are not the network's; SettingsError without the extra ``onnx``, or where ``out`` cannot be written or is what is read.
    Nothing is written then.
    """
    from multiseg import onnx_export

    path = Path(out)
    network = Path(network) if isinstance(network, str) else network
    if to == onnx_export.KIND:
        return onnx_export.export(network, path, input_shape, Path(weights) if isinstance(weights, str) else weights)
    if to not in registry.names():
        known = ", ".join([*registry.names(), onnx_export.KIND])
        raise BackendUnavailable(f"no backend is called {to!r}; known are: {known}")
    target = check_name(path, to)
    if weights is not None:
        raise SettingsError(
            f"weights={str(weights)!r}: a network file for {target.title} has none; they go with to='onnx'"
        )
    check_output(path, [file_of(network)])
    with ExitStack() as stack:
        run = run_of(network, stack)
        topology = described(network, run, input_shape)
        labels = run.label_shape if run and label_shape is None else label_shape
    write_text(path, source(target, topology, of_classes(topology, labels)))
    return path


def run_of(given: Path | Run | Topology, stack: ExitStack) -> Run | None:
    """The run that is given, or that is in the folder given, which ``stack`` closes then; None where it is something else."""
    from multiseg.run import Run, is_run

    if isinstance(given, Run):
        return given
    if isinstance(given, Path) and is_run(given):
        return stack.enter_context(Run.open(given))
    return None


def file_of(given: Path | Run | Topology | None) -> Path | None:
    """The file or folder that is read for it."""
    from multiseg.run import Run

    return given.path if isinstance(given, Run) else given if isinstance(given, Path) else None


def described(network: Path | Run | Topology, run: Run | None, input_shape: tuple[int, int, int] | None) -> Topology:
    """A network file's, run's or described network, for images of ``input_shape``; a run's by default for its dataset's."""
    if isinstance(network, Topology):
        return network
    if run is None:
        assert isinstance(network, Path)
        return describe(network, input_shape)
    return run.topology if input_shape is None else describe(run.model, input_shape)


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
