"""Export a network as a source file of another framework, via its neutral description.

A backend's exporter is a function ``source(topology, classes)`` that returns the text of the file. ``classes``: whether labels
are class indices; the loss in the file is then their cross entropy, else the backend's own loss of images. It raises ModelError
naming the layers that the framework cannot express; it imports no framework. If the backend also writes ONNX, the same module
has ``names(topology)``, which returns the name of each layer in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from multiseg import backend as registry
from multiseg.dataset.labels import Labels, read_as_classes
from multiseg.errors import BackendUnavailable, SettingsError, setting
from multiseg.exporting.inputs import described, file_of, run_of, with_mean_of
from multiseg.exporting.run_loss import with_loss_of
from multiseg.exporting.source import check_name, source
from multiseg.files import read_bytes, write_text
from multiseg.model_files import choosing
from multiseg.model_files.writing import check_output
from multiseg.run.reading import is_run
from multiseg.run.run import Run
from multiseg.topology import Topology, notes


def export(
    network: str | Path | Run | Topology, to: str, out: str | Path,
    input_shape: tuple[int, int, int] | None = None, label_shape: tuple[int, int, int] | None = None,
    weights: str | Path | Run | None = None, *, with_preprocessing: bool = False, with_argmax: bool = False,
    classes: int | None = None, model_options: Mapping[str, Any] | None = None, outputs: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
) -> Path:  # fmt: skip
    """Write a network (a file, a run's, or a described one) as source of the backend ``to`` or as ONNX, and return its path.

    ``network`` may be the name of a network (multiseg.model_files.shipped), or ``FILE.py:NAME(ARGUMENTS)``; ``classes`` and
    ``model_options`` are as in :func:`multiseg.describe`. ``to`` is a backend's name or ``onnx``.
    ``input_shape`` (C, H, W) is as in :func:`multiseg.describe`; the file is right for images of this size, with comments on
    lines that may not be right for others. ``outputs`` are the names of layers that the network is cut to.

    A source file has no weights. Its loss is the cross entropy that a run names, else the backend's own loss of images, or the
    cross entropy if labels are class indices: with ``label_shape``, if a network with this output reads such labels as class
    indices; without it, if the network's own loss takes class indices, or its output is not an image. It has none if the network
    has several inputs or outputs, whose names and order are in comments at its head.

    What the file does not express is named in comments at its head: a loss of the network's own that is replaced, and the mean
    that is subtracted from images first. A prototxt states a mean of one number per channel as ``mean_value``, unless it is a
    dataset's.

    An ONNX file has no loss. ``weights`` specifies a weights file of any backend, or another run of this network; default: the
    weights of the run, or those that the network file itself contains. See docs/migrate.md for its inputs.

    ``with_preprocessing`` puts the channel order, the mean and the standard deviation into the ONNX graph, whose input ``image``
    then is an image as it is read: uint8 (float32 for runs on images of more than 8 bits), (N, C, H, W), colours as R, G, B.
    ``with_argmax`` makes its output ``classes``, the class indices: int64, (N, H, W).

    The ONNX file is written if onnxruntime computes the framework's outputs for random images, and each layer as float64 does, up
    to rounding (multiseg.reference.bounded). ``report`` is called with a sentence about the layers that were compared.

    Raises BackendUnavailable for an unknown backend; ModelError naming every layer that the backend cannot express, weights that
    do not belong to the network, or the first layer that onnxruntime computes otherwise; SettingsError without the extra
    ``onnx``, if ``out`` cannot be written, or if it is one of the files to read. Nothing is written in these cases.
    """
    from multiseg.exporting import onnx as onnx_export

    path = Path(out)
    if isinstance(network, (str, Path)):
        of_file = () if is_run(Path(network)) else outputs
        network = choosing.path_of(
            network, classes=classes, options=model_options, required=classes is not None, outputs=of_file
        )
    elif classes is not None or model_options:
        raise SettingsError(f"{setting('classes')} and {setting('model_options')}: are for network files")
    if to == onnx_export.KIND:
        return onnx_export.export(
            network, path, input_shape, Path(weights) if isinstance(weights, str) else weights,
            with_preprocessing=with_preprocessing, with_argmax=with_argmax, outputs=outputs, report=report,
        )  # fmt: skip
    for name, value in (("with_preprocessing", with_preprocessing), ("with_argmax", with_argmax)):
        if value:
            raise SettingsError(f"{setting(name, True)}: is for ONNX files only, {setting('to', 'onnx')}")
    if to not in registry.names():
        known = ", ".join([*registry.names(), onnx_export.KIND])
        raise BackendUnavailable(f"no backend is called {to!r}; known are: {known}")
    target = check_name(path, to)
    if weights is not None:
        raise SettingsError(
            f"{setting('weights', str(weights))}: a network file for {target.title} contains no weights; "
            f"specify weights only with {setting('to', 'onnx')}"
        )
    check_output(path, [file_of(network)])
    with ExitStack() as stack:
        run = run_of(network, stack)
        topology = with_loss_of(run, with_mean_of(run, described(network, run, input_shape, outputs)))
        declared_labels = Labels()
        if run and label_shape is None:
            label_shape, declared_labels = run.label_shape, run.labels or declared_labels
    write_text(path, source(target, topology, read_as_classes(topology, label_shape, declared_labels.kind)))
    return path


def exported_notes(path: Path) -> list[str]:
    """Return what an exported source file does not express, from the comments at its head; none for an ONNX file."""
    return [] if path.suffix == ".onnx" else notes.read(read_bytes(path).decode(errors="replace"))
