"""Load a Keras model from a file: Keras 3's archive (`.keras`), or HDF5 with the model's configuration (`.h5`, Keras 2 and 3)."""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow
from tensorflow.python.eager import context
from tensorflow.python.framework import tensor_shape

from multiseg.errors import BackendUnavailable, ModelError
from multiseg.files import hdf5, parse_json, read_bytes
from multiseg_tensorflow.keras_models import config as configs
from multiseg_tensorflow.keras_models.forms import old_hard_sigmoid
from multiseg_tensorflow.kinds import is_keras_archive

tf = tensorflow.compat.v1

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"  # members of an archive
HEAD = 1 << 16  # bytes that identify the format
MAX_CONFIG = 1 << 26  # bytes
MAX_EXPANSION = 100  # of a compressed member; Keras does not compress


def load(path: Path, any_size: bool = False) -> Any:
    """Return the model in a file, with its weights; with ``any_size``, for images of any height and width.

    Raises ModelError that names the file, and the layer that cannot be loaded.
    """
    with as_tensorflow_2(), _weights_file(path) as (config, version, weights_file):
        keras = _keras(path)
        reduced = configs.reduced(path, config, version, keras)
        for layer in configs.input_layers(reduced) if any_size else ():
            shape = layer.get("batch_shape", [])
            layer["batch_shape"] = [*shape[:1], None, None, *shape[3:]] if len(shape) == 4 else shape
        model_class = keras.Sequential if reduced["class_name"] == "Sequential" else keras.Model
        with _blaming(path, "building its model"):
            model = model_class.from_config(reduced["config"])
        is_old = not version or version.startswith("2.")
        for layer in model._flatten_layers() if is_old else ():
            if getattr(layer, "activation", None) is keras.activations.hard_sigmoid:
                layer.activation = old_hard_sigmoid
        if not model.built:
            raise ModelError(
                f"{path}: its model does not state the shape of its images; add keras.Input((height, width, channels)) to it"
            )
        with _blaming(path, "loading its weights"):
            model.load_weights(weights_file)
    return model


def load_weights(path: Path, model: Any) -> None:
    """Load a file of weights that Keras wrote without their model (`.weights.h5`, `.h5`) into a model. Raises ModelError."""
    with as_tensorflow_2(), hdf5.opened(path) as file:
        suffix = ".h5" if "layer_names" in file.attrs else ".weights.h5"
        with _named(path, f"model{suffix}") as named, _blaming(path, "loading its weights"):
            model.load_weights(named)


@contextmanager
def as_tensorflow_2() -> Iterator[None]:
    """Execute operations at once and treat shapes as TensorFlow 2 does, which Keras needs; the process is set to TensorFlow 1."""
    shapes, equality = tensor_shape._TENSORSHAPE_V2_OVERRIDE, tensorflow.Tensor._USE_EQUALITY
    tf.enable_v2_tensorshape()
    tensorflow.Tensor._USE_EQUALITY = True
    try:
        with context.eager_mode():
            yield
    finally:
        tensor_shape._TENSORSHAPE_V2_OVERRIDE = shapes
        tensorflow.Tensor._USE_EQUALITY = equality


def _keras(path: Path) -> Any:
    """Return the module keras, set to TensorFlow and its layout. Raises BackendUnavailable."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import keras
    except ImportError as error:
        raise BackendUnavailable(
            f"{path}: Keras models need the package keras, version 3: pip install 'keras>=3'"
        ) from error
    if int(keras.__version__.partition(".")[0]) < 3 or keras.config.backend() != "tensorflow":
        raise BackendUnavailable(
            f"{path}: Keras models need Keras 3 on TensorFlow, here is Keras {keras.__version__} on {keras.config.backend()}: "
            "pip install 'keras>=3'"
        )
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    return keras


@contextmanager
def _weights_file(path: Path) -> Iterator[tuple[Any, str, str]]:
    """Yield the configuration in a model's file, the version of Keras that wrote it, and the path of a file with its weights.

    The version is empty if it is not stated, as in files of early versions of Keras 2. The path has an extension Keras expects.
    """
    try:
        is_archive = is_keras_archive(read_bytes(path, HEAD), path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if is_archive:
        with tempfile.TemporaryDirectory(prefix="multiseg-keras-") as folder:
            config, metadata = _unpacked(path, Path(folder))
            with hdf5.opened(Path(folder, WEIGHTS), f"{path}: {WEIGHTS} in it"):
                pass
            version = metadata.get("keras_version", "") if isinstance(metadata, dict) else ""
            yield config, str(version), str(Path(folder, WEIGHTS))
        return
    with hdf5.opened(path) as file:
        text, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "")
    if text is None:
        raise ModelError(
            f"{path}: contains weights without the model; save the model itself (model.save), or specify the file as weights of "
            "a network"
        )
    with _named(path, "model.h5") as named:
        yield _json(path, text), version.decode() if isinstance(version, bytes) else str(version), named


def _unpacked(path: Path, folder: Path) -> tuple[Any, Any]:
    """Write the weights in an archive to a folder, return its configuration and metadata. Raises ModelError if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = path.stat().st_size
            members = {member.filename: member for member in archive.infolist()}
            missing = [name for name in (CONFIG, WEIGHTS) if name not in members]
            if missing:
                raise ModelError(
                    f"{path}: is not a complete Keras archive: it has no {missing[0]}; save the model again"
                )
            names = [name for name in (CONFIG, WEIGHTS, METADATA) if name in members]
            for name in names:
                member = members[name]
                stored = min(member.compress_size, size)  # what the archive says, and what there is
                if member.file_size > MAX_EXPANSION * max(stored, 1024):
                    raise ModelError(f"{path}: {name} in it expands to {member.file_size} bytes; it is damaged")
                if name != WEIGHTS and member.file_size > MAX_CONFIG:
                    raise ModelError(
                        f"{path}: {name} in it has {member.file_size} bytes; at most {MAX_CONFIG} are read"
                    )
            with archive.open(WEIGHTS) as source, Path(folder, WEIGHTS).open("wb") as target:
                while piece := source.read(1 << 20):
                    target.write(piece)
            metadata = _json(path, archive.read(METADATA)) if METADATA in names else {}
            return _json(path, archive.read(CONFIG)), metadata
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{path}: is not a complete Keras archive: {error}; copy or save it again") from error


def _json(path: Path, text: Any) -> Any:
    """Return the configuration of a model that is stored as JSON."""
    try:
        return parse_json(text)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{path}: the configuration of its model is not JSON ({error}); save the model again"
        ) from error


@contextmanager
def _named(path: Path, name: str) -> Iterator[str]:
    """Yield the path of a link with the name ``name`` to a file, as Keras tells formats by extensions."""
    with tempfile.TemporaryDirectory(prefix="multiseg-keras-") as folder:
        link = Path(folder, name)
        link.symlink_to(path.resolve())
        yield str(link)


@contextmanager
def _blaming(path: Path, what: str) -> Iterator[None]:
    """Convert an error of Keras to a ModelError that names the file."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # a damaged configuration can raise any
        raise ModelError(f"{path}: {what} raised {type(error).__name__}: {_short(error)}") from error


def _short(error: BaseException) -> str:
    """Return the first line of an error with text."""
    lines = lines_of(error)
    return "" if not lines else lines[0] if len(lines[0]) <= 300 else f"{lines[0][:300]} ..."


def lines_of(error: BaseException) -> list[str]:
    """Return the lines with text of an error of Keras, without the codes of terminals that it contains."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    return [line.strip() for line in text.splitlines() if line.strip()]
