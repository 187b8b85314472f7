"""Writing a network as another framework's own source file: described neutrally first, then put into that framework's words.

A backend's exporter is a function ``source(topology, classes)`` that gives the file's text. ``classes`` says whether labels
are class indices: the file's loss is their cross entropy then, else the backend's own loss of images. It raises ModelError
naming the layers that the framework cannot express; it imports no framework. Where the backend also writes ONNX, the same module
has ``names(topology)``: what the file calls each layer.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from multiseg import backend as registry
from multiseg.dataset.labels import Labels, read_as_classes
from multiseg.errors import BackendUnavailable, SettingsError, setting
from multiseg.exporting.inputs import described, file_of, run_of
from multiseg.exporting.source import check_name, source
from multiseg.files import write_text
from multiseg.model_files.writing import check_output
from multiseg.run.run import Run
from multiseg.topology import Topology


def export(
    network: str | Path | Run | Topology, to: str, out: str | Path,
    input_shape: tuple[int, int, int] | None = None, label_shape: tuple[int, int, int] | None = None,
    weights: str | Path | Run | None = None,
) -> Path:  # fmt: skip
    """Write a network file (or a run's, or a described network) as ``to``'s own source or as ONNX, and return its path.

    ``to`` is a backend's name or ``onnx``. ``input_shape`` (C, H, W) is as in :func:`multiseg.describe`; the file is right for
    images of this size, and says where it may not be for others.

    A source has no weights. Its loss is the backend's own one of images, or the cross entropy of class indices: where a
    network with this output reads labels of ``label_shape`` as such; without ``label_shape`` where the network's own loss takes
    class indices, or its output is no image.

    An ONNX file has no loss. Its ``weights`` are those in a file of any backend's formats, or of another run of this network;
    by default the run's own, or those that the network file holds itself. See docs/migrate.md for how it is fed.

    Raises BackendUnavailable for an unknown backend, and ModelError naming every layer that it cannot express, or weights that
    are not the network's; SettingsError without the extra ``onnx``, or where ``out`` cannot be written or is what is read.
    Nothing is written then.
    """
    from multiseg.exporting import onnx as onnx_export

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
            f"{setting('weights', str(weights))}: a network file for {target.title} has none; "
            f"they go with {setting('to', 'onnx')}"
        )
    check_output(path, [file_of(network)])
    with ExitStack() as stack:
        run = run_of(network, stack)
        topology = described(network, run, input_shape)
        stated = Labels()
        if run and label_shape is None:
            label_shape, stated = run.label_shape, run.labels or stated
    write_text(path, source(target, topology, read_as_classes(topology, label_shape, stated.kind)))
    return path
