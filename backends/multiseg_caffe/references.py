"""Files that a prototxt refers to: the matrix of an InfogainLoss, and what its layers write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from multiseg.backend import HOW_TO_TRUST, trusts_graphs
from multiseg.errors import ModelError
from multiseg.files import read_bytes
from multiseg_caffe import proto


def check_writers(net: Any, path: str) -> None:
    """Raise ModelError naming the first layer that writes a file of its own, unless the user trusts the file."""
    if trusts_graphs():
        return
    for layer in net.layer:
        if layer.type == "HDF5Output":
            raise ModelError(
                f"{path}: layer {layer.name!r} (HDF5Output): writes the file {layer.hdf5_output_param.file_name!r} whenever the "
                f"network is run; remove the layer; {HOW_TO_TRUST}"
            )


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
        file = _find(source, folder)
        if file is None:
            raise ModelError(
                f"{path}: layer {layer.name!r}: infogain_loss_param {{ source: {source!r} }}: no such file; relative paths start "
                f"in {folder}"
            )
        _read(file)
        layer.infogain_loss_param.source = str(file)
        inside = folder in file.parents
        files.append(file.relative_to(folder).as_posix() if inside else str(file))
    return files


def _find(source: str, folder: Path) -> Path | None:
    """Return the file that ``source`` names in a prototxt in ``folder``; None if there is none."""
    beside = folder / Path(source).name
    relative = [folder / source, beside, Path(source).absolute()]
    places = [beside, Path(source)] if Path(source).is_absolute() else relative  # a run has its own copy beside it
    return next((place for place in places if place.is_file()), None)


def matrix(net: Any, layer: Any, path: str) -> list[list[float]] | None:
    """Return the matrix of an InfogainLoss, a row for each label; None if it cannot be read, or is computed.

    It is in a file, or, as exported, made of DummyData with constant values and a Concat.
    """
    if len(layer.bottom) < 3:
        file = _find(layer.infogain_loss_param.source, Path(path).resolve().parent)
        try:
            return None if file is None else _read(file)
        except ModelError:  # training reports it
            return None
    producers = {top: each for each in net.layer for top in each.top}
    concat = producers.get(layer.bottom[2])
    if concat is None or concat.type != "Concat" or concat.concat_param.axis != 0:
        return None
    values: list[float] = []
    for bottom in concat.bottom:
        producer = producers.get(bottom)
        if producer is None or producer.type != "DummyData":
            return None
        parameters = producer.dummy_data_param
        if len(parameters.data_filler) != len(producer.top):
            return None
        position = list(producer.top).index(bottom)
        shape = parameters.shape[position] if len(parameters.shape) == len(producer.top) else None
        filler = parameters.data_filler[position]
        if shape is None or len(shape.dim) != 1 or filler.type != "constant":
            return None
        values += [filler.value] * shape.dim[0]
    classes = round(len(values) ** 0.5)
    rows: list[list[float]] = np.reshape(values, (classes, classes)).tolist() if classes**2 == len(values) else []
    return rows or None


def _read(file: Path) -> list[list[float]]:
    """Return the square matrix in a BlobProto. Raises ModelError if the file is none."""
    blob = proto.BlobProto()
    try:
        blob.ParseFromString(read_bytes(file))
    except DecodeError:
        raise ModelError(f"{file}: is not a matrix of InfogainLoss, a binary BlobProto") from None
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    classes = shape[-1] if shape else 0
    if len(blob.data) != classes**2 or shape[-2:] != [classes, classes]:
        raise ModelError(f"{file}: is a BlobProto of shape {tuple(shape)}, not a square matrix of InfogainLoss")
    rows: list[list[float]] = np.reshape(blob.data, (classes, classes)).tolist()
    return rows
