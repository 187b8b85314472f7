"""Network and weights files: which kind one is, and what is in it.

A backend's reader is a module with two functions. Both raise ModelError naming the file.

- ``describe(path, input_shape)``: a dict of plain values with ``input`` (name of the one input), ``input_shape`` (C, H, W),
  ``layers``, ``outputs`` (names of values) and ``loss`` (in words, or None). Each layer is a dict with ``name``, ``type``,
  ``inputs`` and ``parameters`` in the vocabulary of multiseg.topology.shapes, ``outputs`` where they are not just its name,
  and for types beyond the vocabulary ``shapes`` and ``weights``. Where layers of several names have a weight in common,
  ``shared`` lists groups of their names. ``input_shape`` may be None: then the file must say it.
- ``read_weights(path)``: neutral weights, ``{"layer.part": array}``. Where the network file of the same backend that they belong
  to is known, it is called with ``network`` and ``input_shape`` too: not every file says how its arrays lie.

A backend's writer is a function ``write(path, weights, network, input_shape, others)`` that writes neutral weights as the
framework's own file, or as several whose names begin with that of ``path``: where ``network`` is not None, as this network file
has them, whose own names they are; else under the names as they are. A network may have more parameters than its description
tells: of these it takes from ``others`` what has the name and shape, and leaves as the network starts with it what leads to no
output. It gives a dict with the names of both, ``taken`` and ``started``, and raises ModelError for what cannot be.

Neutral weights themselves are kept as safetensors, see multiseg.weights_file; those the core reads itself.
"""

from __future__ import annotations

import filecmp
import glob
import hashlib
import importlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from multiseg import backend as registry
from multiseg import weights_file
from multiseg.backend import Backend, FileKind
from multiseg.errors import ModelError, SettingsError
from multiseg.files import target
from multiseg.topology import Topology
from multiseg.weights_file import NeutralWeights

if TYPE_CHECKING:
    from multiseg.worker.client import Worker

HEAD = 1 << 16  # bytes by which a kind is told


def kind_of(path: Path, holds: Literal["network", "weights"]) -> tuple[Backend, FileKind]:
    """The backend and kind of a file, told from its content; where several would do, from its extension as well.

    Raises ModelError saying what is there and what is expected.
    """
    head = _head(path)
    kinds = [(backend, kind) for backend in registry.installed() for kind in backend.kinds]
    found = [(backend, kind) for backend, kind in kinds if kind.recognise(head, path)]
    wanted = [(backend, kind) for backend, kind in found if kind.holds == holds]
    if len(wanted) > 1:
        wanted = [each for each in wanted if path.suffix in each[1].extensions] or wanted
    if len(wanted) == 1:
        return wanted[0]
    names = [f"{kind.name} ({', '.join(kind.extensions) or 'a folder'})" for _, kind in kinds if kind.holds == holds]
    known = "; ".join([*names, *(["safetensors (.safetensors)"] if holds == "weights" else [])])
    if wanted:
        raise ModelError(
            f"{path}: may be a {' or a '.join(kind.name for _, kind in wanted)}; name it with one of their extensions"
        )
    if holds == "network" and weights_file.recognised(head):
        raise ModelError(f"{path}: is safetensors, which holds weights; expected is: {known}")
    if found:
        raise ModelError(f"{path}: is a {found[0][1].name}, which holds {found[0][1].holds}; expected is: {known}")
    raise ModelError(f"{path}: is no {holds} file of a known kind; expected is: {known}; found {_looks(head, path)}")


def is_network(path: Path) -> bool:
    """Whether a file is of a kind that holds a network."""
    try:
        return bool(kind_of(path, "network"))
    except ModelError:
        return False


def describe(
    file: str | Path, input_shape: tuple[int, int, int] | None = None, worker: Worker | None = None
) -> Topology:
    """The network in ``file``, of any backend's formats, for images of ``input_shape`` (C, H, W).

    Without a shape the file's own is taken. A network file written in Python is executed, in its backend's process, or in
    ``worker``, where one is at hand. Raises ModelError naming the file, and BackendUnavailable where the file needs a
    framework that is not there.
    """
    path = Path(file)
    backend, kind = kind_of(path, "network")
    shape = None if input_shape is None else [int(size) for size in input_shape]
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        raise ModelError(f"input_shape={tuple(shape)}: must be three numbers from 1: channels, height, width")
    description = _ask(backend, "describe", worker, path=str(path.resolve()), input_shape=shape)
    return Topology.of(path.name, kind.name, description)


def read_weights(file: str | Path) -> Mapping[str, npt.NDArray[np.float32]]:
    """Neutral weights from a safetensors file, or one of any backend's formats. Raises ModelError naming the file."""
    return read_neutral(file).weights


def read_neutral(
    file: str | Path, network: Path | None = None, input_shape: tuple[int, int, int] | None = None,
    worker: Worker | None = None,
) -> NeutralWeights:  # fmt: skip
    """The same, with all that the file says of them; the order of the colours is that of the file's backend.

    ``network`` is the file of the network that they belong to, for images of ``input_shape`` (C, H, W), where it is known.
    """
    path = Path(file)
    if weights_file.recognised(_head(path)):
        return weights_file.read(path)
    backend, _ = kind_of(path, "weights")
    more = {}
    if network is not None and input_shape is not None and kind_of(network, "network")[0] == backend:
        more = {"network": str(network.resolve()), "input_shape": list(input_shape)}
    weights = _ask(backend, "read_weights", worker, path=str(path.resolve()), **more)
    return NeutralWeights(weights, backend.channel_order)


def write_weights(
    backend: Backend, path: Path, weights: Mapping[str, npt.NDArray[np.float32]], network: Path | None,
    input_shape: tuple[int, int, int] | None, worker: Worker | None = None,
    others: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> dict[str, list[str]]:  # fmt: skip
    """Write neutral weights as the backend's own file: see above. Raises ModelError also where it writes none."""
    if backend.writer is None:
        raise ModelError(f"{path}: backend {backend.name!r} reads weights, but writes none")
    module, _, function = backend.writer.partition(":")
    arguments = {
        "path": str(path.resolve()),
        "weights": dict(weights),
        "network": None if network is None else str(network.resolve()),
        "input_shape": None if input_shape is None else list(input_shape),
        "others": dict(others or {}),
    }
    found: dict[str, list[str]] = _call(backend, module, function, backend.writer_needs_framework, worker, arguments)
    return found


def check_output(path: Path, inputs: Iterable[Path | None]) -> None:
    """Raise SettingsError where a file cannot be written, or is one of ``inputs``, or belongs to one."""
    real = target(path)
    for each in inputs:
        own = [] if each is None else [each, *parts(each)]
        if any(real == Path(os.path.realpath(part)) for part in own):
            raise SettingsError(f"{path}: would replace what is read, {each}; name another file to write")


def copy(path: Path, folder: Path) -> None:
    """Copy a network file into an existing folder, with all that belongs to it."""
    for source in parts(path):
        target = folder / source.relative_to(path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def same(path: Path, other: Path) -> bool:
    """Whether two network files of one name have the same content, with all that belongs to them."""
    ours, theirs = ({part.relative_to(each.parent): part for part in parts(each)} for each in (path, other))
    return ours.keys() == theirs.keys() and all(
        filecmp.cmp(part, theirs[name], shallow=False) for name, part in ours.items()
    )


def fingerprint(path: Path) -> str:
    """Of a network file's content, with all that belongs to it: twelve digits of its SHA-256."""
    digest = hashlib.sha256()
    for part in parts(path):
        digest.update(part.read_bytes())
    return digest.hexdigest()[:12]


def parts(path: Path) -> list[Path]:
    """The files that a network file consists of."""
    try:
        beside = kind_of(path, "network")[1].beside
    except ModelError:  # of no known kind: the backend that is to load it says so
        beside = ()
    if not path.exists():
        return []
    patterns = [pattern.format(name=glob.escape(path.name), stem=glob.escape(path.stem)) for pattern in beside]
    inside = [part for part in sorted(path.rglob("*")) if part.is_file()] if path.is_dir() else [path]
    return inside + sorted(part for pattern in patterns for part in path.parent.glob(pattern))


def _ask(backend: Backend, function: str, worker: Worker | None = None, **arguments: Any) -> Any:
    return _call(backend, backend.reader, function, backend.reader_needs_framework, worker, arguments)


def _call(
    backend: Backend,
    module: str,
    function: str,
    needs_framework: bool,
    worker: Worker | None,
    arguments: dict[str, Any],
) -> Any:
    """Call a backend's function: here, or in its process, where ``worker`` may be one."""
    if not needs_framework:
        return getattr(importlib.import_module(module), function)(**arguments)
    if worker is not None:
        return worker.call("read", module=module, function=function, arguments=arguments)
    from multiseg.worker.client import Worker

    with Worker(backend) as started:
        return _call(backend, module, function, needs_framework, started, arguments)


def _head(path: Path) -> bytes:
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        if path.with_name(path.name + ".index").is_file():  # a TensorFlow checkpoint is named by a prefix
            return b""
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def _looks(head: bytes, path: Path) -> str:
    if path.is_dir():
        return "a folder"
    if not head:
        return "an empty file"
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return f"binary data, {head[:8].hex(' ')} ..."
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"text that begins with {first[:60]!r}"
