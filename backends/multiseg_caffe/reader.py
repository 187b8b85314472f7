"""Read Caffe's files without Caffe: see multiseg.model_files."""

from __future__ import annotations

from typing import Any

from multiseg.errors import ModelError, setting
from multiseg.network import Array
from multiseg.worker import choice
from multiseg_caffe import cutting, losses, prototxt, sources, weights_files
from multiseg_caffe.deploy import deployed
from multiseg_caffe.describing import placing
from multiseg_caffe.describing.layers import add_training_statistics, described


def describe(path: str, input_shape: list[int] | None) -> dict[str, Any]:
    """Return a description of the deploy network in a prototxt: an all-in-one, train_val or deploy file.

    Raises ModelError that names the file, and the layer that Caffe would reject.
    """
    chosen = choice.read(path)
    file, path = prototxt.read(path), str(chosen.file)
    network = deployed(file, path, chosen.outputs)
    shape = input_shape or (None if network.shape is None else list(network.shape[1:]))
    if shape is None:
        raise ModelError(
            f"{path}: does not specify the size of its input; set "
            f"{setting('input_shape', example='(channels, height, width)')}"
        )
    if min(shape, default=0) < 1:
        raise ModelError(f"{path}: its input {network.image!r} has the size {tuple(shape)}; sizes must be at least 1")
    inputs = network.input_shapes(shape, path)
    placed = placing.infer(network.net, path, inputs)
    layers, values = described(placed, path, list(inputs))
    training = prototxt.filtered(file, "train", path)
    add_training_statistics(layers, placed, training)
    return {
        "input": network.image,
        "input_shape": shape,
        "more_inputs": {name: list(inputs[name][1:]) for name in network.more},
        "layers": layers,
        "aliases": {blob: value for blob, value in values.items() if blob not in inputs and blob != value},
        "remarks": cutting.remarks(path),
        "outputs": [values[blob] for blob in network.outputs],
        **placing.sharing(placed),
        "mean": _mean(path),
        **losses.described(training, values, sources.label_scale(training, path), path),
    }


def _mean(path: str) -> list[float] | None:
    """Return the mean that the file states; None if it has none, or contradictory ones, which training reports."""
    try:
        return sources.file_mean(path)
    except ModelError:
        return None


def read_weights(path: str, network: str | None = None, input_shape: list[int] | None = None) -> dict[str, Array]:
    """Return the neutral weights of a caffemodel. Raises ModelError that names the file.

    A file in HDF5 has no types of layers, which are those of ``network`` if it is specified.
    """
    return weights_files.read(path, network)
