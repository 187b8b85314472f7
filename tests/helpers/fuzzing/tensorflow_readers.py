"""Readers that TensorFlow's process runs: graphs, SavedModels, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from helpers import keras_files
from helpers.fuzzing.reader import Reader
from helpers.tensorflow_graphs import Written, small


def samples(folder: Path) -> None:
    """Write an undamaged file for each reader."""
    Written(folder, small)
    keras_files.write(folder, KERAS)
    with h5py.File(folder / "old.weights.h5", "w") as file:  # as Keras 2 names them
        file.attrs["layer_names"] = [b"conv"]
        file.create_group("conv").attrs["weight_names"] = [b"conv/kernel:0"]
        file["conv/conv/kernel:0"] = np.ones((3, 3, 1, 2), np.float32)
    (folder / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (folder / "names.pb").write_bytes((folder / "frozen.pb").read_bytes())
    (folder / "names.pb.json").write_text('{"input": "image:0", "output": "output:0", "values": {"keep": 1}}')


KERAS = """
inputs = keras.Input((8, 8, 1))
convolved = L.Conv2D(2, 3, padding="same", activation="relu")(inputs)
model = keras.Model(inputs, L.BatchNormalization()(convolved))
save(model, "model.keras")
model.save(folder + "model.h5")
model.save_weights(folder + "model.weights.h5")
"""


def _described(path: Path) -> Any:
    from multiseg_tensorflow import reader

    return reader.describe(str(path), [1, 8, 8])


def _weights(path: Path) -> Any:
    from multiseg_tensorflow import reader

    return reader.read_weights(str(path))


def _refused(path: Path) -> Any:
    from multiseg.errors import ModelError

    try:
        return _weights(path)
    except ModelError:
        return None


def _saved(path: Path) -> Any:
    return _described(path.parents[len(path.parts) - 1 - path.parts.index("saved") - 1])


READERS = [
    Reader("GraphDef", "frozen.pb", _described, 2),
    Reader("GraphDef as text", "frozen.pbtxt", _described, 1),
    Reader("weights in a GraphDef", "frozen.pb", _weights, 0.5),
    Reader("names of tensors", "names.pb.json", lambda path: _described(path.with_suffix("")), 0.5),
    Reader("MetaGraph", "net.meta", _described, 1),
    Reader("SavedModel", "saved/saved_model.pb", _saved, 1),
    Reader("index of a SavedModel", "saved/variables/variables.index", _saved, 0.3),
    Reader("index of a checkpoint", "net.index", lambda path: _weights(path.with_suffix("")), 2),
    Reader("data of a checkpoint", "net.data-00000-of-00001", lambda path: _weights(path.with_suffix("")), 1),
    Reader("list of checkpoints", "checkpoint", lambda path: _weights(path.parent), 0.5),
    Reader("Keras", "keras.h5", _refused, 0.2),
    Reader("model of Keras", "model.keras", _described, 0.3),
    Reader("model of Keras in HDF5", "model.h5", _described, 0.3),
    Reader("weights of Keras", "old.weights.h5", _weights, 2),
    Reader("numbered weights of Keras", "model.weights.h5", _refused, 0.5),
]
