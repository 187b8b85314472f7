"""Read weights that Keras wrote in HDF5 without their model: `model.save_weights` of Keras 2 (`.h5`) and 3 (`.weights.h5`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multiseg.errors import ModelError
from multiseg.files import hdf5
from multiseg.worker import choice
from multiseg_tensorflow import files, kinds
from multiseg_tensorflow.digits import GraphKeys
from multiseg_tensorflow.graph import read_layers
from multiseg_tensorflow.keras_models import loading
from multiseg_tensorflow.weights_files import of_names


def read(path: Path, network: Path | None, input_shape: Sequence[int] | None) -> dict[str, Any]:
    """Return the neutral weights in a file, which Keras loads into its own model ``network`` for images of ``input_shape``.

    Without such a network, the weights have the names in the file, which Keras 3 does not store. Raises ModelError.
    """
    if network is not None and _is_keras_model(network):
        file = files.load(network)
        assert file.keras is not None
        loading.load_weights(path, file.keras.model)
        values = {f"{GraphKeys.MODEL}/{name}": value for name, value in file.keras.values().items()}
        weights = read_layers(file, file.image_shape(input_shape)).weights
        return {weight.name: weight.to_neutral(values[name]).astype(np.float32) for name, weight in weights.items()}
    arrays: dict[str, Any] = {}
    with hdf5.opened(path) as file:
        for layer in _strings(file.attrs.get("layer_names", [])):
            for name in _strings(file[layer].attrs.get("weight_names", [])):
                value = file[layer][name]
                if np.issubdtype(value.dtype, np.floating):
                    arrays[name.partition(":")[0]] = np.asarray(value, np.float32)
    if not arrays:
        raise ModelError(
            f"{path}: contains numbered weights of Keras, whose layers only their model names: specify the file of that model "
            "(.keras, .h5) as their network, or save the model itself, model.save('model.keras')"
        )
    return of_names(path, arrays)


def _is_keras_model(network: Path) -> bool:
    file = choice.read(network).file  # of a network that is cut to some of its outputs, too
    return kinds.is_keras_model(files.read_head(file), file)


def _strings(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
