"""Files that a prototxt refers to: the matrix of an InfogainLoss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from multiseg.errors import ModelError
from multiseg_caffe import proto


def resolve(net: Any, path: str) -> list[str]:
    """Replace the paths in ``net`` by absolute ones; return the files, relative to the folder of the prototxt if they are in it.

    A relative path is looked up in the folder of the prototxt ``path``, then by its name alone there, as in a run folder, then
    in the current folder, as Caffe does; a file of that name beside the prototxt precedes an absolute path. Raises ModelError,
    where Caffe terminates the process, for a file that does not exist or is no matrix.
    """
    folder, files = Path(path).resolve().parent, []
    for layer in net.layer:
        if layer.type != "InfogainLoss" or len(layer.bottom) > 2 or not layer.infogain_loss_param.source:
            continue
        source = layer.infogain_loss_param.source
        beside = folder / Path(source).name
        relative = [folder / source, beside, Path(source).absolute()]
        places = [beside, Path(source)] if Path(source).is_absolute() else relative  # a run has its own copy beside it
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise ModelError(
                f"{path}: layer {layer.name!r}: infogain_loss_param {{ source: {source!r} }}: no such file; relative paths start "
                f"in {folder}"
            )
        _check_matrix(file)
        layer.infogain_loss_param.source = str(file)
        inside = folder in file.parents
        files.append(file.relative_to(folder).as_posix() if inside else str(file))
    return files


def _check_matrix(file: Path) -> None:
    """Raise ModelError unless a file is a BlobProto with a square matrix."""
    blob = proto.BlobProto()
    try:
        blob.ParseFromString(file.read_bytes())
    except DecodeError:
        raise ModelError(f"{file}: is not a matrix of InfogainLoss, a binary BlobProto") from None
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    classes = shape[-1] if shape else 0
    if len(blob.data) != classes**2 or shape[-2:] != [classes, classes]:
        raise ModelError(f"{file}: is a BlobProto of shape {tuple(shape)}, not a square matrix of InfogainLoss")
