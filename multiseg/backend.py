"""What a backend declares about itself, and the registry of installed backends.

A backend is an entry point of the group ``multiseg.backends`` that names a :class:`Backend`. Importing it must not import
its framework: the framework is loaded only in the backend's own process, by the module that ``Backend.module`` names.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal

from multiseg.errors import BackendUnavailable

GROUP = "multiseg.backends"

DataOrder = Literal["NCHW", "NHWC"]
ChannelOrder = Literal["RGB", "BGR"]


@dataclass(frozen=True)
class FileKind:
    """A kind of file that a backend reads. ``recognise`` is told the file's beginning (empty for a folder) and its path.

    It goes by content; the extensions are for messages. ``beside`` are patterns (glob) of further files in the same folder that
    belong to one, with its ``{name}``, or that without extension, ``{stem}``.
    """

    name: str
    extensions: tuple[str, ...]
    holds: Literal["network", "weights"]
    recognise: Callable[[bytes, Path], bool]
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backend:
    """A framework as multiseg sees it: its defaults, its data layout, and where its code is.

    ``solvers`` maps a solver's name to its default parameters. ``losses`` are the named losses that it has; ``loss`` is that of a
    network file without one. ``weight_decay_per_rate`` stands for a weight decay that is this fraction of the base learning rate
    (DIGITS sets Caffe's so).
    """

    name: str
    title: str
    module: str  # worker-side module with `Network` (see multiseg.network) and `probe()`
    framework: str  # what that module imports, for messages
    install: str  # how to get the framework, as one command
    kinds: tuple[FileKind, ...]  # of files it reads
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
    weights_format: str = ""  # what its weights files are called where they are written, e.g. pt
    writer: str | None = None  # "module:function" that writes them, see multiseg.model_files
    writer_needs_framework: bool = True  # whether that module runs only in the backend's process
    distributed: str | None = (
        None  # worker-side module with `Network` (multiseg.network.RankNetwork), see multiseg.training.ranks
    )
    not_distributed: str = ""  # where there is none: the reason, for messages
    environment: Mapping[str, str] = field(default_factory=dict)  # set in the worker before anything is imported

    @property
    def formats(self) -> tuple[str, ...]:
        """File name extensions of the network files it loads."""
        found = (name for kind in self.kinds if kind.holds == "network" for name in kind.extensions)
        return tuple(dict.fromkeys(found))

    @property
    def python_variable(self) -> str:
        """The environment variable that names another interpreter for this backend."""
        return f"MULTISEG_{self.name.upper()}_PYTHON"

    @property
    def python(self) -> str:
        """The interpreter that runs this backend: the variable's, else the running one.

        Raises BackendUnavailable where the variable names no executable file.
        """
        chosen = os.environ.get(self.python_variable)
        if not chosen:
            return sys.executable
        if not os.access(chosen, os.X_OK) or Path(chosen).is_dir():
            raise BackendUnavailable(
                f"{self.python_variable}={chosen}: no such executable; name a Python that can `import {self.framework}`, "
                "or unset the variable"
            )
        return chosen

    @property
    def default_model_path(self) -> Path:
        """The network file used where a job names none."""
        package, _, name = self.default_model.partition(":")
        return package_folder(package) / name


def package_folder(package: str) -> Path:
    """The folder of an importable top-level package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailable(f"package {package!r} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def entry_point_table() -> dict[str, EntryPoint]:
    """Installed backends' entry points by name; two distributions that claim one name are an error."""
    table: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = table.setdefault(point.name, point)
        if other.value != point.value:
            raise BackendUnavailable(
                f"backend {point.name!r} is provided twice, as {other.value} and as {point.value}; uninstall one of them"
            )
    return table


def names() -> list[str]:
    """Names of the installed backends, sorted."""
    return sorted(entry_point_table())


def installed() -> list[Backend]:
    """All installed backends, by name. Raises BackendUnavailable where one cannot be loaded."""
    return [_load(point) for _, point in sorted(entry_point_table().items())]


def get(name: str) -> Backend:
    """The backend called ``name``. Raises BackendUnavailable, listing the known names, where there is none."""
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
