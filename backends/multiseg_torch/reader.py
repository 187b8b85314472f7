"""Read network and weights files of PyTorch and Torch7; see multiseg.model_files. Runs in the backend's process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from multiseg.errors import ModelError, setting
from multiseg.network import Array
from multiseg.worker import choice
from multiseg_torch import files, losses, weights_files
from multiseg_torch.describing import tracing
from multiseg_torch.weights import FLAT, unflattened


def describe(path: str, input_shape: list[int] | tuple[int, int, int] | None) -> dict[str, Any]:
    """Return the network's layers for images of ``input_shape`` (C, H, W); a Python file is executed."""
    if input_shape is None:
        raise ModelError(
            f"{choice.read(path).file}: does not say for which images it is; give "
            f"{setting('input_shape', example='(channels, height, width)')}"
        )
    channels, height, width = input_shape
    torch.manual_seed(0)
    loaded, chosen = files.load(path, (channels, height, width)), choice.read(path).outputs
    path = loaded.path
    loaded.model.eval()
    if loaded.crop:  # the network receives crops of this size
        height, width = min(height, loaded.crop), min(width, loaded.crop)
    inputs = files.inputs_of(loaded, (channels, height, width))
    images = [torch.zeros(2, *shape) for shape in inputs.values()]
    files.trial(path, loaded.model, images, several=True)
    try:
        layers, outputs, titles = tracing.layers_of(loaded.model, images, list(inputs))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    if len(chosen) == 1 and chosen[0] in titles:  # the file's loss compares the only output that is left
        outputs, titles = [outputs[titles.index(chosen[0])]], list(chosen)
    last = next((layer["type"] for layer in reversed(layers) if outputs[0] in layer.get("outputs", ())), "")
    return {
        "input": tracing.INPUT,
        "input_shape": [channels, height, width],
        "more_inputs": {name: list(shape) for name, shape in inputs.items() if name != tracing.INPUT},
        "layers": layers,
        "outputs": outputs,
        "output_titles": titles,
        **tracing.sharing(loaded.model, layers),
        "loss": losses.loss_in_words(loaded.loss),
        "loss_labels": losses.labels_of(loaded.loss),
        "objective": _objective(loaded.loss, last, outputs[0]) if len(outputs) == 1 else None,
        "cross_entropy": losses.is_cross_entropy(loaded.loss, last),
    }


def _objective(loss: object, last: str, output: str) -> dict[str, Any] | None:
    """Return the objective of a loss for a network whose last layer has the type ``last``.

    A criterion of PyTorch takes the output as it is, also after a softmax of the network's own.
    """
    objective = losses.objective(loss)
    if objective is None or (type(loss) is nn.NLLLoss and last == "Softmax"):
        return None
    takes_output = type(loss) in (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)
    return {**objective, "scores": output} if takes_output else objective


def read_weights(path: str, network: str | None = None, input_shape: list[int] | None = None) -> Mapping[str, Array]:
    """Return the neutral weights of a state_dict or a .t7 file. Raise ModelError, naming the file, if it cannot be read.

    A .t7 file with one flat vector is split in the parameter order of ``network``, built for images of ``input_shape`` (C, H, W).
    """
    found = weights_files.read(str(Path(path)))
    if network is None or input_shape is None or set(found) != {FLAT}:
        return found
    channels, height, width = input_shape
    return unflattened(files.load(network, (channels, height, width)).model, network, found)
