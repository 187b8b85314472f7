"""Read TensorFlow's files into neutral descriptions and weights, see multiseg.model_files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiseg_tensorflow import files, keras_weights, kinds, weights_files
from multiseg_tensorflow.describing.layers import Layers
from multiseg_tensorflow.files import NetworkFile
from multiseg_tensorflow.graph import read_layers


def describe(path: str, input_shape: list[int] | None) -> dict[str, Any]:
    """Return the description of the inference network in a file, with the dropout of the training network.

    ``input_shape`` is (C, H, W). Raises ModelError that names the file, also if neither the file nor ``input_shape``
    specifies the image size.
    """
    file = files.load(Path(path))
    height, width, channels = file.image_shape(input_shape)
    layers = read_layers(file, (height, width, channels), dropouts=True)
    return {
        "input": layers.sources[0].name,
        "input_shape": [channels, height, width],
        "more_inputs": layers.more_inputs(),
        "layers": layers.to_dicts(),
        "outputs": layers.outputs,
        "output_titles": layers.titles,
        **layers.sharing(),
        "loss": _loss(file, layers),
    }


def _loss(file: NetworkFile, layers: Layers) -> str | None:
    """Return the loss in words; None if there is none. That of a graph is multiseg's, of one output."""
    if file.plain:
        return file.loss if len(layers.outputs) == 1 else None
    return "the file's own" if hasattr(file.tower, "loss") else None


def read_weights(path: str, network: str | None = None, input_shape: list[int] | None = None) -> dict[str, Any]:
    """Return the neutral weights of a checkpoint, a graph or a SavedModel. Raises ModelError that names the file.

    If ``network`` and ``input_shape`` (C, H, W) are specified, the layouts of a checkpoint's arrays are those of the
    network's layers for images of that shape; ``input_shape`` is also that of a graph that does not specify its own.
    """
    file = Path(path)
    head = files.read_head(file) if file.exists() else b""
    if kinds.is_keras_weights(head, file) or kinds.is_numbered_keras_weights(head, file):
        return keras_weights.read(file, None if network is None else Path(network), input_shape)
    if any(is_kind(head, file) for is_kind in (kinds.is_graph, kinds.is_saved_model, kinds.is_keras_model)):
        return weights_files.read_graph(file, input_shape)
    if network is None or input_shape is None:
        return weights_files.read(file)
    channels, height, width = input_shape
    return weights_files.read(file, Path(network), (height, width, channels))
