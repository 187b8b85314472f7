"""Identify TensorFlow's file formats by their content. Does not import tensorflow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from multiseg.backend import FileKind
from multiseg.files import hdf5, open_regular
from multiseg.worker.choice import reads_classes

INDEX_MAGIC = bytes.fromhex("57fb808b247547db")  # last bytes of a checkpoint's index, a LevelDB table
SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
CHECKPOINT_STATE = re.compile(rb'^[ \t]*model_checkpoint_path:\s*"', re.MULTILINE)
DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")
Field = tuple[int, "int | bytes"]


def is_digits(head: bytes, path: Path) -> bool:
    """Return whether a file is a Python file with a class UserModel."""
    return re.search(rb"^class\s+UserModel\b", head, re.MULTILINE) is not None


def is_graph(head: bytes, path: Path) -> bool:
    """Return whether a file is a GraphDef, binary or text: its nodes have a name and an operation."""
    if _is_text(head):
        return re.match(rb"(?:\s|#[^\n]*\n)*node\s*[{<]", head) is not None
    number, node = next(_fields(head), (0, 0))
    return number == 1 and isinstance(node, bytes) and _is_node(node)


def is_meta_graph(head: bytes, path: Path) -> bool:
    """Return whether a file is a MetaGraphDef, binary or text: it starts with a MetaInfoDef, then its GraphDef."""
    if _is_text(head):
        return re.match(rb"(?:\s|#[^\n]*\n)*(meta_info_def|graph_def)\s*[{<]", head) is not None
    number, info = next(_fields(head), (0, 0))
    if number != 1 or not isinstance(info, bytes) or _is_node(info):
        return False
    info_fields = dict(_fields(info))
    operations, version = info_fields.get(2), info_fields.get(5)
    return (isinstance(operations, bytes) and operations[:1] == b"\n") or (
        isinstance(version, bytes) and re.match(rb"\d+\.\d+", version) is not None
    )


def is_saved_model(head: bytes, path: Path) -> bool:
    """Return whether a path is the folder of a SavedModel, or the file in it that holds its graph."""
    return path.name in SAVED_MODEL or any((path / name).is_file() for name in SAVED_MODEL)


def is_checkpoint(head: bytes, path: Path) -> bool:
    """Return whether a path is a checkpoint: its prefix, one of its files, or a folder with the file `checkpoint`."""
    return checkpoint_prefix(path) is not None


def is_keras_archive(head: bytes, path: Path) -> bool:
    """Return whether a file is the zip archive in which Keras 3 stores a model."""
    return head.startswith(b"PK\x03\x04") and re.search(rb"PK\x03\x04.{26}config\.json", head, re.DOTALL) is not None


def is_keras_model(head: bytes, path: Path) -> bool:
    """Return whether a file is a Keras model with its weights: the archive of Keras 3, or HDF5."""
    return is_keras_archive(head, path) or "model_weights" in hdf5.root_names(path, head)


def is_keras_weights(head: bytes, path: Path) -> bool:
    """Return whether a file is in HDF5 with names of weights, without a model, and not one of Caffe's."""
    if not head.startswith(hdf5.SIGNATURE):
        return False
    names = hdf5.root_names(path, head)
    caffe = names in (["data"], ["data", "diff"]) or path.name.endswith(".caffemodel.h5")
    return not ("model_weights" in names or "layers" in names or caffe)


def is_numbered_keras_weights(head: bytes, path: Path) -> bool:
    """Return whether a file is what `save_weights` of Keras 3 writes: HDF5 in which weights have numbers."""
    return head.startswith(hdf5.SIGNATURE) and "layers" in hdf5.root_names(path, head)


def checkpoint_prefix(path: Path) -> Path | None:
    """Return the prefix (TensorFlow's name) of the checkpoint at ``path``, or None if it is not a checkpoint."""
    if path.is_dir():
        path = path / "checkpoint"
    if path.with_name(path.name + ".index").is_file():
        return path
    if not path.is_file():
        return None
    if DATA.search(path.name) and Path(DATA.sub(".index", str(path))).is_file():
        return Path(DATA.sub("", str(path)))
    with open_regular(path) as file:
        head = file.read(4096)
        if path.suffix == ".index":
            size = file.seek(0, 2)
            file.seek(max(0, size - len(INDEX_MAGIC)))
            return path.with_suffix("") if file.read() == INDEX_MAGIC else None
    if path.name == "checkpoint" and CHECKPOINT_STATE.search(head):
        match = re.search(rb'^[ \t]*model_checkpoint_path:\s*"([^"]*)"', head, re.MULTILINE)
        return (
            path.parent / Path(match[1].decode(errors="replace").replace("\0", "")).name if match else None
        )  # the folder may have been moved
    return None


def _is_text(head: bytes) -> bool:
    """Return whether the first bytes of a file are printable ASCII."""
    return bool(head) and b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n" for byte in head[:64])


def _is_node(node: bytes) -> bool:
    """Return whether the first two fields of a message are those of a NodeDef: its name and its operation."""
    fields = _fields(node)
    first, second = next(fields, (0, 0)), next(fields, (0, 0))
    return (
        first[0] == 1
        and second[0] == 2
        and isinstance(first[1], bytes)
        and isinstance(second[1], bytes)
        and re.fullmatch(rb"[\w.>/\\-]+", first[1]) is not None
        and re.fullmatch(rb"[A-Za-z_>][\w>]*", second[1]) is not None
    )


def _fields(message: bytes) -> Iterator[Field]:
    """Yield the numbers and values of a message's fields, up to the first one of another wire type than 0 and 2.

    Encoding: https://protobuf.dev/programming-guides/encoding.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
        elif kind == 2:
            size, at = _varint(message, at)
            yield number, message[at : at + size]
            at += size
        else:
            return


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at offset ``at``, and the offset after it."""
    value = shift = 0
    while at < len(message):
        value |= (message[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if message[at - 1] < 128:
            break
    return value, at


def leaves_classes_open(path: str) -> bool:
    """Return whether a network file reads DIGITS' number of classes, ``self.nclasses``."""
    file = Path(path)
    return file.suffix == ".py" and reads_classes(file)


KINDS = (
    FileKind("DIGITS TensorFlow file", (".py",), "network", is_digits),
    FileKind("TensorFlow graph", (".pb", ".pbtxt"), "network", is_graph, ("{name}.json",)),
    FileKind(
        "TensorFlow MetaGraph", (".meta",), "network", is_meta_graph, ("{stem}.index", "{stem}.data-*", "{name}.json")
    ),
    FileKind("TensorFlow SavedModel", (), "network", is_saved_model, ("{name}.json",)),
    FileKind("TensorFlow graph", (".pb", ".pbtxt"), "weights", is_graph),
    FileKind("TensorFlow SavedModel", (), "weights", is_saved_model),
    FileKind("TensorFlow checkpoint", (".index",), "weights", is_checkpoint),
    FileKind("Keras model", (".keras", ".h5", ".hdf5"), "network", is_keras_model),
    FileKind("Keras model", (".keras", ".h5", ".hdf5"), "weights", is_keras_model),
    FileKind("Keras weights file", (".h5", ".hdf5"), "weights", is_keras_weights),
    FileKind("Keras 3 weights file", (".weights.h5",), "weights", is_numbered_keras_weights, needs_network=True),
)
