"""What is in this backend's files: networks described in the neutral vocabulary, and weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multiseg.errors import ModelError
from multiseg.network import IMAGES


def dropout(path: str) -> float:
    """The one thing that a network file says. Raises ModelError naming the file."""
    try:
        value = json.loads(Path(path).read_text())["numpy network"]["dropout"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f'{path}: is no NumPy network: {error}; it is {{"numpy network": {{"dropout": 0.25}}}}'
        ) from error
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ModelError(f"{path}: dropout={value!r}: must be from 0 to below 1")
    return float(value)


def channels(path: str) -> int:
    """The number of channels of the output, 1 unless the file says otherwise."""
    return int(json.loads(Path(path).read_text())["numpy network"].get("channels", 1))


def describe(path: str, input_shape: Sequence[int] | None) -> dict[str, Any]:
    """The network's layers; see multiseg.model_files."""
    ratio = dropout(path)
    if input_shape is None:
        raise ModelError(f"{path}: does not say how large its images are: give an input shape")
    convolution = {"num_output": channels(path), "kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "bias_term": True}
    layers = [
        {"name": "drop", "type": "Dropout", "inputs": ["images"], "parameters": {"ratio": ratio}},
        {"name": "conv", "type": "Conv", "inputs": ["drop"], "parameters": convolution},
        {"name": "scale", "type": "Scale", "inputs": ["conv"], "parameters": {"bias_term": True}},
    ]
    loss = "mean squared error"
    return {"input": "images", "input_shape": input_shape, "layers": layers, "outputs": ["scale"], "loss": loss,
            "loss_labels": IMAGES}  # fmt: skip


def read_weights(path: str, network: str | None = None, input_shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Neutral weights out of this backend's snapshots, or any .npz with arrays named ``layer.part``."""
    with np.load(path) as file:
        return {name.removeprefix("weights/"): file[name] for name in file.files if not name.startswith("state/")}
