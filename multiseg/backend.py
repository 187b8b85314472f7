"""The declaration of a backend, and the registry of installed backends.

A backend is an entry point of the group ``multiseg.backends`` that refers to a :class:`Backend`. Importing it must not import
its framework: the framework is loaded only in the backend's own process, by the module ``Backend.module``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal, NamedTuple

from multiseg.errors import BackendUnavailable

GROUP = "multiseg.backends"

TRUST_GRAPH = "MULTISEG_TRUST_GRAPH"  # environment variable: graph files may run operations and layers of any kind

DataOrder = Literal["NCHW", "NHWC"]
ChannelOrder = Literal["RGB", "BGR"]


class KnownFault(NamedTuple):
    """A fault of a framework: its section in docs/upstream-faults.md, and whether it may end the process, at any time later."""

    section: str
    ends_process: bool


@dataclass(frozen=True)
class FileKind:
    """A kind of file of a framework. ``recognise`` takes the first bytes of the file (empty for a folder) and its path.

    Files are recognised by content; the extensions are for messages. ``beside`` are glob patterns of further files in the same
    folder that belong to a file, in which ``{name}`` is its name and ``{stem}`` its name without extension.
    ``needs_network``: a weights file without the names or the types of layers, which are those of the weights' network.
    A ``program`` is recognised but not read: ``instead`` tells what the user can do.
    """

    name: str
    extensions: tuple[str, ...]
    holds: Literal["network", "weights", "program"]
    recognise: Callable[[bytes, Path], bool]
    beside: tuple[str, ...] = ()
    needs_network: bool = False
    instead: str = ""


@dataclass(frozen=True)
class Backend:
    """The declaration of a framework: its defaults, its data layout, and the modules with its code.

    ``solvers`` maps a solver's name to its default parameters. ``losses`` are the named losses that it supports; ``loss`` is the
    loss of a network file without one. The parameter ``weight_decay_per_rate`` is a weight decay as a fraction of the base
    learning rate (as DIGITS sets it for Caffe).
    """

    name: str
    title: str
    module: str  # worker-side module with `Network` (see multiseg.network) and `probe()`
    framework: str  # package that this module imports, for messages
    install: str  # command that installs the framework
    kinds: tuple[FileKind, ...]  # kinds of files that it reads
    reader: str  # module with `describe` and `read_weights`, see multiseg.model_files
    reader_needs_framework: bool  # whether that module runs only in the backend's process
    default_model: str  # "package:file", the FCN of the tutorial
    data_order: DataOrder
    channel_order: ChannelOrder
    learning_rate: float
    batch_size: int
    val_batch_size: int
    loss: str
    solvers: Mapping[str, Mapping[str, float]]
    losses: tuple[str, ...]  # names of multiseg.settings.losses
    exporter: str | None = None  # "module:function" that writes its first kind of network file, see multiseg.exporting
    onnx: str | None = (
        None  # "module:function" that writes an exported file as ONNX, in its process; see multiseg.exporting.onnx
    )
    mean: str | None = None  # "module:function" that returns a network file's own mean, or None; needs no framework
    # "module:function" that returns the crops and the mirroring that a network file states, or None; needs no framework
    cropping: str | None = None
    # "module:function" that returns sentences about what a network file leaves ambiguous; needs no framework
    notes: str | None = None
    # "module:function" that returns whether a network file takes the number of classes from outside; needs no framework
    open_classes: str | None = None
    # whether its cross entropies are of clipped probabilities and summed in one variable of float32, as Caffe's are
    clips_losses: bool = False
    # "module:function" that returns the KnownFault of the framework that lowering avoids in a layer (type, parameters, shape of
    # its first input), or None; needs no framework
    known_faults: str | None = None
    weights_format: str = ""  # name of its weights file format when writing, e.g. pt
    writer: str | None = None  # "module:function" that writes weights files, see multiseg.model_files
    writer_needs_framework: bool = True  # whether that module runs only in the backend's process
    # "module:function" that writes a program without multiseg which computes an exported file, in its process; see
    # multiseg.topology.interfaces.AloneWriter
    alone: str | None = None
    distributed: str | None = (
        None  # worker-side module with `Network` (multiseg.network.RankNetwork), see multiseg.training.ranks
    )
    compiles: bool = False  # whether the training step can be compiled
    precisions: tuple[str, ...] = ("float32",)  # precisions of a training step, of multiseg.network.PRECISIONS
    not_distributed: str = ""  # the reason if ``distributed`` is None, for messages
    environment: Mapping[str, str] = field(default_factory=dict)  # of the worker, unless the user has set them

    @property
    def formats(self) -> tuple[str, ...]:
        """The extensions of the network files that the backend loads."""
        extensions = (name for kind in self.kinds if kind.holds == "network" for name in kind.extensions)
        return tuple(dict.fromkeys(extensions))

    @property
    def python_variable(self) -> str:
        """The environment variable that specifies another interpreter for this backend."""
        return f"MULTISEG_{self.name.upper()}_PYTHON"

    @property
    def python(self) -> str:
        """The interpreter that runs this backend: that of :attr:`python_variable`, else the current interpreter.

        Raises BackendUnavailable if the variable is set to something that is not an executable file.
        """
        interpreter = os.environ.get(self.python_variable)
        if not interpreter:
            return sys.executable
        if not os.access(interpreter, os.X_OK) or Path(interpreter).is_dir():
            raise BackendUnavailable(
                f"{self.python_variable}={interpreter}: no such executable; name a Python that can "
                f"`import {self.framework}`, or unset the variable"
            )
        return interpreter

    @property
    def default_model_path(self) -> Path:
        """The network file of jobs that do not specify one."""
        package, _, name = self.default_model.partition(":")
        return package_folder(package) / name


def trusts_graphs() -> bool:
    """Return whether the user allows network files of graphs and layers (not programs) to read and write files."""
    return bool(os.environ.get(TRUST_GRAPH))


HOW_TO_TRUST = f"if you trust the file, allow it with --trust-graph, or the environment variable {TRUST_GRAPH}=1"


def package_folder(package: str) -> Path:
    """Return the folder of an importable top-level package without importing it. Raises BackendUnavailable if there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailable(f"package {package!r} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _changes() -> tuple[tuple[str, int], ...]:
    """Return the folders that Python imports from, with the times of their last changes; an installation changes its folder."""
    changes = []
    for path in map(os.path.abspath, sys.path):
        try:
            changes.append((path, Path(path).stat().st_mtime_ns))
        except OSError:
            changes.append((path, 0))
    return tuple(changes)


@lru_cache(maxsize=1)
def _entry_points(changes: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of backends, which takes milliseconds: the metadata of all installed distributions are read."""
    return tuple(entry_points(group=GROUP))


def entry_point_table() -> dict[str, EntryPoint]:
    """Return the entry points of installed backends by name. Raises BackendUnavailable if two distributions use one name."""
    table: dict[str, EntryPoint] = {}
    for point in _entry_points(_changes()):
        other = table.setdefault(point.name, point)
        if other.value != point.value:
            raise BackendUnavailable(
                f"backend {point.name!r} is provided twice, as {other.value} and as {point.value}; uninstall one of them"
            )
    return table


def names() -> list[str]:
    """Return the names of the installed backends, sorted."""
    return sorted(entry_point_table())


def installed() -> list[Backend]:
    """Return all installed backends, sorted by name. Raises BackendUnavailable if one cannot be loaded."""
    return [_load(point) for _, point in sorted(entry_point_table().items())]


def get(name: str) -> Backend:
    """Return the backend called ``name``. Raises BackendUnavailable listing the installed ones if there is none."""
    table = entry_point_table()
    if name not in table:
        raise BackendUnavailable(f"no backend is called {name!r}; known are: {', '.join(sorted(table)) or 'none'}")
    return _load(table[name])


def _load(point: EntryPoint) -> Backend:
    try:
        backend = point.load()
    except (ImportError, AttributeError) as error:
        raise BackendUnavailable(f"backend {point.name!r} ({point.value}) cannot be loaded: {error}") from error
    if not isinstance(backend, Backend):
        raise BackendUnavailable(
            f"backend {point.name!r}: {point.value} is a {type(backend).__name__}, not a multiseg Backend"
        )
    return backend
