"""Loading a network file of any of TensorFlow's kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiseg.errors import ModelError
from multiseg_tensorflow import kinds, plain, stored, user_file
from multiseg_tensorflow.digits import GraphKeys

HEAD = 1 << 16


@dataclass(frozen=True)
class NetworkFile:
    """A network as it is in its file: ``tower`` is called as DIGITS calls a user's class.

    ``weights`` are the variables' start values where they are the file's, not an initialiser's; ``shape`` is the image's
    H, W, C where the file says it; ``loss`` is what its own loss is called, None for the file's name.
    """

    path: Path
    tower: Any
    weights: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, int, int] | None = None
    loss: str | None = None
    plain: bool = False  # a graph, not a program

    def own_name(self, variable: str) -> str:
        """What the file calls a variable of the network that is made of it: DIGITS has all in a scope, graphs have not."""
        return variable.partition("/")[2] if self.plain else variable


def head(path: Path) -> bytes:
    """The beginning of a file, by which its kind is told; nothing of a folder. Raises ModelError."""
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def load(path: Path, seed: int = 0) -> NetworkFile:
    """Load a network file. Raises ModelError naming it."""
    start = head(path)
    if any(is_kind(start, path) for is_kind in (kinds.is_graph, kinds.is_meta_graph, kinds.is_saved_model)):
        graph = plain.plain(path, stored.read(path, start, seed))
        height, width, channels = graph.shape
        shape = (height, width, channels) if height and width and channels else None
        weights = {f"{GraphKeys.MODEL}/{name}": value for name, value in graph.weights.items()}
        return NetworkFile(path, plain.tower(graph), weights, shape, "l2", plain=True)
    if path.suffix == ".py" or kinds.is_digits(start, path):
        return NetworkFile(path, user_file.load(path))
    raise ModelError(
        f"{path}: is no TensorFlow network; expected is a DIGITS file with a class UserModel (.py), a GraphDef (.pb, "
        ".pbtxt), a MetaGraph (.meta) or a SavedModel's folder"
    )
