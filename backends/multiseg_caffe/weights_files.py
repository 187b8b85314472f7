"""Neutral weights in caffemodels: read, and written as Net::ToProto does (src/caffe/net.cpp), without Caffe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, EncodeError

from multiseg.errors import ModelError, setting
from multiseg.files import write_bytes
from multiseg.network import Array, check_weights
from multiseg_caffe import prototxt, weights
from multiseg_caffe.blobs import blob_of
from multiseg_caffe.deploy import deployed
from multiseg_caffe.describing import placing
from multiseg_caffe.proto import LayerParameter, NetParameter
from multiseg_caffe.upgrade import upgrade
from multiseg_caffe.weights import BATCH_NORM, assign, neutral

LARGEST = 1 << 31  # bytes of a protobuf message, which Caffe reads as one


def write(
    path: str,
    weights: Mapping[str, Array],
    network: str | None,
    input_shape: list[int] | None,
    others: Mapping[str, Array],
) -> dict[str, list[str]]:
    """See multiseg.model_files. A prototxt's description tells of all its weights.

    Raises ModelError naming the layer that Caffe has no place for.
    """
    layers = _of_names(path, weights) if network is None else _of_network(network, weights, input_shape)
    if sum(value.nbytes for value in weights.values()) >= LARGEST:
        raise ModelError(f"{path}: its weights are 2 GiB or more; a caffemodel, one protobuf message, is less")
    net = NetParameter(name=Path(path if network is None else network).stem)
    net.layer.extend(layers)
    try:
        write_bytes(Path(path), net.SerializeToString())
    except EncodeError as error:
        raise ModelError(f"{path}: cannot be written as one protobuf message: {error}") from error
    return {"taken": [], "started": []}


def _of_network(network: str, weights: Mapping[str, Array], input_shape: list[int] | None) -> list[Any]:
    found = deployed(prototxt.read(network), network)
    shape = input_shape or (None if found.shape is None else list(found.shape[1:]))
    if shape is None:
        raise ModelError(
            f"{network}: does not say the size of its input; give "
            f"{setting('input_shape', example='(channels, height, width)')}"
        )
    placed = [here for here in placing.infer(found.net, network, {found.image: (1, *shape)}) if here.weights]
    blobs = {here.layer.name: [np.zeros(each, np.float32) for each in here.weights] for here in placed}
    parts = {here.layer.name: neutral(here.layer, blobs[here.layer.name]) for here in placed}
    shapes = {f"{name}.{part}": value.shape for name, own in parts.items() for part, value in own.items()}
    check_weights(network, shapes, weights)
    layers = []
    for here in placed:
        name = here.layer.name
        assign(here.layer, blobs[name], {part: weights[f"{name}.{part}"] for part in parts[name]})
        layers.append(_with(here.layer, blobs[name]))
    return layers


def _of_names(path: str, weights: Mapping[str, Array]) -> list[Any]:
    """Layers of the types that their weights look like; Caffe itself goes by names and shapes alone."""
    by_layer: dict[str, dict[str, Array]] = {}
    for name, value in weights.items():
        layer, _, part = name.rpartition(".")
        by_layer.setdefault(layer or name, {})[part] = value
    layers = []
    for name, parts in by_layer.items():
        unknown = [part for part in parts if part not in ("weight", "bias", *BATCH_NORM)]
        if unknown or (set(parts) & set(BATCH_NORM) and not set(BATCH_NORM) <= set(parts)):
            raise ModelError(
                f"{path}: which layer of Caffe has the weights {', '.join(parts)} of {name!r} cannot be told; give the network "
                f"file that they are for, {setting('network', example='FILE')}"
            )
        factors = name
        if "running_mean" in parts:
            layer = LayerParameter(name=name, type="BatchNorm")
            layers.append(_with(layer, [parts[part] for part in BATCH_NORM] + [np.ones(1, np.float32)]))
            factors = f"{name}_scale"  # what our own prototxts call it
        held = [parts[part] for part in ("weight", "bias") if part in parts]
        if held:
            if factors != name and factors in by_layer:
                raise ModelError(
                    f"{path}: {name!r} has factors of its own, and there is a layer {factors!r}, as Caffe would call them; give "
                    f"the network file that they are for, {setting('network', example='FILE')}"
                )
            layers.append(_with(LayerParameter(name=factors, type=_type(parts)), held))
    return layers


def _type(parts: Mapping[str, Array]) -> str:
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
    """A copy of a layer with these arrays in it."""
    copy = LayerParameter()
    copy.CopyFrom(layer)
    for value in blobs:
        copy.blobs.add().CopyFrom(blob_of(value))
    return copy


def read(path: str) -> dict[str, Array]:
    """Neutral weights of a caffemodel, which says all of them itself. Raises ModelError where it is none, or cut short."""
    try:
        net = NetParameter.FromString(Path(path).read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError:
        raise ModelError(f"{path}: is no caffemodel, or one that is cut short") from None
    upgrade(net, path)
    found: dict[str, Array] = {}
    for layer in net.layer:
        blobs = [_array(path, layer.name, index, blob) for index, blob in enumerate(layer.blobs)]
        for part, array in weights.neutral(layer, blobs).items():
            if found.setdefault(f"{layer.name}.{part}", array) is not array:
                raise ModelError(f"{path}: has two layers {layer.name!r} with weights")
    if not found:
        raise ModelError(f"{path}: holds no weights")
    return found


def _array(path: str, layer: str, index: int, blob: Any) -> Array:
    """A BlobProto's data in its shape, which old files give as num, channels, height, width."""
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") or not any(legacy) else legacy  # a scalar has neither
    data = np.array(blob.data or blob.double_data, dtype=np.float32)
    if any(size < 0 for size in shape) or data.size != int(np.prod(shape, dtype=np.int64)):
        raise ModelError(
            f"{path}: layer {layer!r}: weights {index} are {data.size} numbers for the shape {shape}; the file is damaged"
        )
    return data.reshape(shape)
