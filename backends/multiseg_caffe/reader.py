"""What is in Caffe's files, without Caffe: see multiseg.model_files."""

from __future__ import annotations

from typing import Any

from multiseg.errors import ModelError, setting
from multiseg.network import Array
from multiseg_caffe import losses, prototxt, weights_files
from multiseg_caffe.deploy import deployed
from multiseg_caffe.describing import placing
from multiseg_caffe.describing.layers import described


def describe(path: str, input_shape: list[int] | None) -> dict[str, Any]:
    """The network in a prototxt as it is deployed; all-in-one, train_val and deploy files alike.

    Raises ModelError naming the file, and the layer that Caffe would refuse.
    """
    file = prototxt.read(path)
    found = deployed(file, path)
    shape = input_shape or (None if found.shape is None else list(found.shape[1:]))
    if shape is None:
        raise ModelError(
            f"{path}: does not say the size of its input; give "
            f"{setting('input_shape', example='(channels, height, width)')}"
        )
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
        **losses.described(prototxt.filtered(file, "train", path)),
    }


def read_weights(path: str, network: str | None = None, input_shape: list[int] | None = None) -> dict[str, Array]:
    """Return the neutral weights of a caffemodel, which needs no network file. Raises ModelError naming the file."""
    return weights_files.read(path)
