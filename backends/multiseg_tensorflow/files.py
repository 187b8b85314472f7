"""Load a network file of any TensorFlow format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiseg.errors import ModelError, setting
from multiseg.files import read_bytes
from multiseg.worker import choice
from multiseg_tensorflow import kinds, plain, stored, user_file
from multiseg_tensorflow.digits import GraphKeys
from multiseg_tensorflow.identity import Identity
from multiseg_tensorflow.keras_models import tower

HEAD_SIZE = 1 << 16  # bytes
ANY_SIZE = 512  # pixels, of images that the layers of a Keras model without a size are described for


@dataclass(frozen=True)
class NetworkFile:
    """A loaded network file: ``tower`` is called like the class `UserModel` of a DIGITS file.

    ``weights`` are the initial values of the variables that the file stores, others have initialisers. ``shape`` is the
    image shape (H, W, C) if the file specifies it. ``loss`` is the name of the network's own loss, None for the name of
    the file.
    """

    path: Path
    tower: Any
    weights: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, int, int] | None = None
    loss: str | None = None
    plain: bool = False  # a graph, not a Python file
    input_type: str = "float32"  # of the images
    folded: frozenset[str] = (
        frozenset()
    )  # variables of the file that the network has not, see multiseg_tensorflow.folding
    constants: frozenset[str] = (
        frozenset()
    )  # weights of a graph that its checkpoint lacks, see multiseg_tensorflow.plain
    classes: int | None = None  # the number of classes, if it is known
    outputs: tuple[str, ...] = ()  # names of the outputs that the network is cut to, none for all of it
    any_shape: tuple[int, int, int] | None = None  # an image shape that the layers can be described for
    keras: tower.KerasFile | None = None  # the model in a file of Keras
    identity: Identity | None = None  # of a Python file

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of the layers of a Keras model in the names of their operations, with dots; empty for other files."""
        return frozenset() if self.keras is None else self.keras.scopes

    def hint(self, shape: Sequence[int | None]) -> str:
        """Return what the message of an error in a Python file adds, if that fails with images of this shape (H, W, C)."""
        if self.plain:
            return ""
        if None in shape:  # with a size, the file has been read without an error
            return (
                "; the images differ in size, so input_shape has no height and width: use self.x and tf.shape(self.x)"
            )
        return choice.lacks_classes(self.path, self.classes)

    def own_name(self, variable: str) -> str:
        """Return the name in the file of a variable of the loaded network: without the scope of DIGITS for graphs."""
        return variable.partition("/")[2] if self.plain else variable

    def image_shape(self, requested: Sequence[int] | None) -> tuple[int, int, int]:
        """Return the image shape (H, W, C): ``requested`` (C, H, W), or the file's. Raises ModelError if neither has one."""
        if requested is not None:
            channels, height, width = requested
            return height, width, channels
        if self.shape is None:
            raise ModelError(
                f"{self.path}: does not specify its image size; specify "
                f"{setting('input_shape', example='(channels, height, width)')}"
            )
        return self.shape


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file, which identify its format; empty for a folder. Raises ModelError."""
    if path.is_dir():
        return b""
    try:
        return read_bytes(path, HEAD_SIZE)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def load(path: Path, seed: int = 0) -> NetworkFile:
    """Load a network file, or the choice in one; ``seed`` initialises variables without a stored value.

    Raises ModelError that names the file.
    """
    chosen = choice.read(path)
    path = chosen.file
    head = read_head(path)
    if any(is_kind(head, path) for is_kind in (kinds.is_graph, kinds.is_meta_graph, kinds.is_saved_model)):
        graph = plain.plain(path, stored.read(path, head, seed), chosen.outputs)
        height, width, channels = graph.shape
        shape = (height, width, channels) if height and width and channels else None
        weights = {f"{GraphKeys.MODEL}/{name}": value for name, value in graph.weights.items()}
        return NetworkFile(
            path, plain.tower(graph), weights, shape, "l2", True, graph.input.dtype.name, frozenset(graph.folded),
            constants=frozenset(graph.constants), outputs=chosen.outputs, any_shape=shape,
        )  # fmt: skip
    if kinds.is_keras_model(head, path):
        keras = tower.load(path)
        height, width, channels = keras.shape
        shape = (height, width, channels) if height and width and channels else None
        weights = {f"{GraphKeys.MODEL}/{name}": value for name, value in keras.values().items()}
        return NetworkFile(
            path, tower.tower(keras), weights, shape, "l2", True, outputs=chosen.outputs,
            any_shape=(height or ANY_SIZE, width or ANY_SIZE, channels or 0), keras=keras,
        )  # fmt: skip
    if path.suffix == ".py" or kinds.is_digits(head, path):
        model = user_file.load(chosen)
        return NetworkFile(
            path, model, classes=chosen.classes, outputs=chosen.outputs, identity=Identity.of(chosen)
        )  # fmt: skip
    raise ModelError(
        f"{path}: is not a TensorFlow network; use a DIGITS file with a class UserModel (.py), a GraphDef (.pb, "
        ".pbtxt), a MetaGraph (.meta), the folder of a SavedModel, or a Keras model (.keras, .h5)"
    )
