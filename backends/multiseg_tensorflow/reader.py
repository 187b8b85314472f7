"""What is in TensorFlow's files, neutrally: see multiseg.model_files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiseg.errors import ModelError, setting
from multiseg_tensorflow import files, kinds, weights_files
from multiseg_tensorflow.graph import read_layers


def describe(path: str, input_shape: list[int] | None) -> dict[str, Any]:
    """The network in a file, as it predicts, with the dropout that it trains with.

    Raises ModelError naming the file, also where neither it nor ``input_shape`` says how large its images are.
    """
    file = files.load(Path(path))
    if input_shape is not None:
        channels, height, width = input_shape
    elif file.shape is not None:
        height, width, channels = file.shape
    else:
        raise ModelError(
            f"{path}: does not say how large its images are; give "
            f"{setting('input_shape', example='(channels, height, width)')}"
        )
    layers = read_layers(file, (height, width, channels), dropouts=True)
    return {
        "input": layers.source.name,
        "input_shape": [channels, height, width],
        "layers": layers.described(),
        "outputs": [layers.output],
        "shared": layers.shared(),
        "loss": file.loss or "the file's own",
    }


def read_weights(path: str, network: str | None = None, input_shape: list[int] | None = None) -> dict[str, Any]:
    """Neutral weights from a checkpoint, a graph or a SavedModel. Raises ModelError naming it.

    A checkpoint's arrays are taken as the ``network`` uses them at images of ``input_shape`` (C, H, W), where it is given.
    """
    file = Path(path)
    head = files.head(file) if file.exists() else b""
    if kinds.is_keras(head, file):
        raise ModelError(
            f"{path}: Keras' own files are not read; export the model with model.export(FOLDER) and use that folder"
        )
    if kinds.is_graph(head, file) or kinds.is_saved_model(head, file):
        return weights_files.of_graph(file)
    if network is None or input_shape is None:
        return weights_files.read(file)
    channels, height, width = input_shape
    return weights_files.read(file, Path(network), (height, width, channels))
