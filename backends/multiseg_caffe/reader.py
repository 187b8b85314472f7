"""What is in Caffe's files, without Caffe: see multiseg.model_files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from multiseg.errors import ModelError
from multiseg.network import Array
from multiseg_caffe import losses, placing, prototxt, weights
from multiseg_caffe.deploy import deployed
from multiseg_caffe.neutral import described
from multiseg_caffe.proto import NetParameter
from multiseg_caffe.upgrade import upgrade


def describe(path: str, input_shape: list[int] | None) -> dict[str, Any]:
    """The network in a prototxt as it is deployed; all-in-one, train_val and deploy files alike.

    Raises ModelError naming the file, and the layer that Caffe would refuse.
    """
    file = prototxt.read(path)
    found = deployed(file, path)
    shape = input_shape or (None if found.shape is None else list(found.shape[1:]))
    if shape is None:
        raise ModelError(f"{path}: does not say the size of its input; give input_shape=(channels, height, width)")
    if min(shape, default=0) < 1:
        raise ModelError(f"{path}: its input {found.image!r} has the size {tuple(shape)}; sizes are from 1")
    placed = placing.infer(found.net, path, {found.image: (1, *shape)})
    layers, values = described(placed, path, found.image)
    return {
        "input": found.image,
        "input_shape": shape,
        "layers": layers,
        "outputs": [values[blob] for blob in found.outputs],
        "shared": placing.shared(placed),
        "loss": losses.words(prototxt.filtered(file, "train", path)),
    }


def read_weights(path: str, network: str | None = None, input_shape: list[int] | None = None) -> dict[str, Array]:
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
