"""Read caffemodels as neutral weights, and write these as Net::ToProto does (src/caffe/net.cpp), without Caffe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, EncodeError

from multiseg.errors import ModelError, setting
from multiseg.files import hdf5, read_bytes, write_bytes
from multiseg.network import Array, check_weights
from multiseg.worker import choice
from multiseg_caffe import hdf5_weights, prototxt, weights
from multiseg_caffe.blobs import blob_of, numbers_of
from multiseg_caffe.deploy import deployed
from multiseg_caffe.describing import placing
from multiseg_caffe.proto import LayerParameter, NetParameter
from multiseg_caffe.upgrade import upgrade
from multiseg_caffe.weights import BATCH_NORM, assign, neutral

LARGEST = 1 << 31  # limit of a protobuf message in bytes; a caffemodel is one message


def write(
    path: str,
    weights: Mapping[str, Array],
    network: str | None,
    input_shape: list[int] | None,
    others: Mapping[str, Array],
) -> dict[str, list[str]]:
    """Write a caffemodel; see multiseg.model_files. "taken" and "started" are empty: a prototxt specifies all its weights.

    Raises ModelError that names the layer that Caffe cannot represent.
    """
    layers = _of_names(path, weights) if network is None else _of_network(network, weights, input_shape)
    if sum(value.nbytes for value in weights.values()) >= LARGEST:
        raise ModelError(f"{path}: its weights are 2 GiB or more; a caffemodel, one protobuf message, must be smaller")
    net = NetParameter(name=Path(path if network is None else network).stem)
    net.layer.extend(layers)
    try:
        write_bytes(Path(path), net.SerializeToString())
    except EncodeError as error:
        raise ModelError(f"{path}: cannot be written as one protobuf message: {error}") from error
    return {"taken": [], "started": []}


def _of_network(network: str, weights: Mapping[str, Array], input_shape: list[int] | None) -> list[Any]:
    """Return the layers of a network file that have weights, with the given weights."""
    chosen = choice.read(network)
    file, network = prototxt.read(network), str(chosen.file)
    net = deployed(file, network, chosen.outputs)
    shape = input_shape or (None if net.shape is None else list(net.shape[1:]))
    if shape is None:
        raise ModelError(
            f"{network}: does not specify the size of its input; set "
            f"{setting('input_shape', example='(channels, height, width)')}"
        )
    placed = [p for p in placing.infer(net.net, network, net.input_shapes(shape, network)) if p.weights]
    blobs = {p.layer.name: [np.zeros(shape, np.float32) for shape in p.weights] for p in placed}
    parts = {p.layer.name: neutral(p.layer, blobs[p.layer.name]) for p in placed}
    shapes = {f"{name}.{part}": array.shape for name, arrays in parts.items() for part, array in arrays.items()}
    check_weights(network, shapes, weights)
    layers = []
    for p in placed:
        name = p.layer.name
        assign(p.layer, blobs[name], {part: weights[f"{name}.{part}"] for part in parts[name]})
        layers.append(_with(p.layer, blobs[name]))
    return layers


def _of_names(path: str, weights: Mapping[str, Array]) -> list[Any]:
    """Return layers whose types are inferred from the weights; Caffe itself uses only names and shapes of a caffemodel."""
    by_layer: dict[str, dict[str, Array]] = {}
    for name, value in weights.items():
        layer, _, part = name.rpartition(".")
        by_layer.setdefault(layer or name, {})[part] = value
    layers = []
    for name, parts in by_layer.items():
        unknown = [part for part in parts if part not in ("weight", "bias", *BATCH_NORM)]
        if unknown or (set(parts) & set(BATCH_NORM) and not set(BATCH_NORM) <= set(parts)):
            raise ModelError(
                f"{path}: cannot infer the type of layer {name!r} from its weights {', '.join(parts)}; specify the network "
                f"file that they are for, {setting('network', example='FILE')}"
            )
        factors = name
        if "running_mean" in parts:
            layer = LayerParameter(name=name, type="BatchNorm")
            layers.append(_with(layer, [parts[part] for part in BATCH_NORM] + [np.ones(1, np.float32)]))
            factors = f"{name}_scale"  # the name in the prototxts that multiseg writes
        blobs = [parts[part] for part in ("weight", "bias") if part in parts]
        if blobs:
            if factors != name and factors in by_layer:
                raise ModelError(
                    f"{path}: the scale of {name!r} becomes a layer {factors!r} in Caffe, and there is another layer of this "
                    f"name; specify the network file that they are for, {setting('network', example='FILE')}"
                )
            layers.append(_with(LayerParameter(name=factors, type=_type(parts)), blobs))
    return layers


def _type(parts: Mapping[str, Array]) -> str:
    """Return the type of layer that has these weights."""
    if "weight" not in parts:
        return "Bias"
    weight = parts["weight"]
    if weight.ndim == 1:
        return "Scale"
    if weight.ndim == 2:
        return "InnerProduct"
    outputs = parts["bias"].shape[0] if "bias" in parts else weight.shape[0]
    return "Convolution" if outputs == weight.shape[0] else "Deconvolution"


def _with(layer: Any, blobs: list[Array]) -> Any:
    """Return a copy of a LayerParameter with these arrays as its blobs."""
    copy = LayerParameter()
    copy.CopyFrom(layer)
    for value in blobs:
        copy.blobs.add().CopyFrom(blob_of(value))
    return copy


def read(path: str, network: str | None = None) -> dict[str, Array]:
    """Return the neutral weights of a caffemodel, in Caffe's binary format or in HDF5, which lacks the types of layers: these
    are taken from the prototxt ``network``. Raises ModelError if the file is not a caffemodel, or truncated."""
    arrays: dict[str, Array] = {}
    for layer, blobs in _layers(path, network):
        for part, array in weights.neutral(layer, blobs).items():
            if arrays.setdefault(f"{layer.name}.{part}", array) is not array:
                raise ModelError(f"{path}: has two layers {layer.name!r} with weights")
    if not arrays:
        raise ModelError(f"{path}: holds no weights")
    return arrays


def _layers(path: str, network: str | None) -> list[hdf5_weights.Layer]:
    """Return the layers in a caffemodel with their arrays."""
    try:
        head = read_bytes(path, len(hdf5.SIGNATURE))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if head == hdf5.SIGNATURE:
        return hdf5_weights.layers(Path(path), network)
    net = _parsed(path)
    upgrade(net, path)
    return [
        (layer, [_array(path, layer.name, index, blob) for index, blob in enumerate(layer.blobs)])
        for layer in net.layer
    ]


def check_layers(path: Path, layers: Iterable[str]) -> None:
    """Raise ModelError if a caffemodel lacks the weights of one of these layers, which Caffe would leave as they are."""
    net = _parsed(path)
    stored = {layer.name for layer in net.layer if layer.blobs}
    missing = next((name for name in layers if name not in stored), None)
    if missing is not None:
        raise ModelError(f"{path}: is damaged: it has no weights of the layer {missing!r}")


def _parsed(path: str | Path) -> Any:
    """Return the NetParameter in a caffemodel, as it is stored."""
    try:
        return NetParameter.FromString(read_bytes(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError:
        raise ModelError(f"{path}: is not a caffemodel, or truncated") from None


def _array(path: str, layer: str, index: int, blob: Any) -> Array:
    """Return a BlobProto's array; old files specify its shape as num, channels, height, width."""
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") or not any(legacy) else legacy  # a scalar has neither
    try:
        data = numbers_of(blob)
    except ValueError as error:
        raise ModelError(f"{path}: layer {layer!r}: weights {index} are {error}, which are not read") from error
    if any(size < 0 for size in shape) or data.size != int(np.prod(shape, dtype=np.int64)):
        raise ModelError(
            f"{path}: layer {layer!r}: weights {index} are {data.size} numbers for the shape {shape}; the file is damaged"
        )
    return data.reshape(shape)
