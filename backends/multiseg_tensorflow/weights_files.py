"""Neutral weights from TensorFlow's files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multiseg.errors import ModelError
from multiseg_tensorflow import files, kinds, stored
from multiseg_tensorflow.graph import read_layers
from multiseg_tensorflow.weights import Weight, depthwise, neutral_name, plain

OBJECT = re.compile(r"(.*)/\.ATTRIBUTES/VARIABLE_VALUE$")  # TensorFlow 2 names values by the objects that hold them
NO_WEIGHT = re.compile(  # what optimisers and counters keep
    r"(^|/)(global_step|save_counter|_CHECKPOINTABLE_OBJECT_GRAPH|beta\d_power|Adam(_\d+)?|Momentum(_\d+)?|RMSProp(_\d+)?|"
    r"Adagrad(_\d+)?|Adadelta(_\d+)?|Ftrl(_\d+)?|ExponentialMovingAverage|optimizer|_optimizer|\.OPTIMIZER_SLOT)(/|$)"
)


def of_graph(path: Path) -> dict[str, Any]:
    """Weights that a graph's own file holds. Raises ModelError naming it, also where it does not say its images' size."""
    file = files.load(path)
    if file.shape is None:
        raise ModelError(
            f"{path}: does not say how large its images are, on which its layers depend; export it with a size"
        )
    known = read_layers(file, file.shape).weights
    return {weight.name: weight.neutral(file.weights[name]).astype(np.float32) for name, weight in known.items()}


def read(path: Path, network: Path | None = None, shape: tuple[int, int, int] | None = None) -> dict[str, Any]:
    """Weights of the checkpoint that ``path`` names, by ``layer.part``. Raises ModelError naming it.

    They become neutral as the ``network`` file uses them at images of ``shape`` (H, W, C), where it is given; else as a graph
    beside the checkpoint (``.meta``) does whose input and output can be told; else as their names and shapes say.
    """
    prefix = kinds.checkpoint_prefix(path)
    if prefix is None:
        raise ModelError(f"{path}: is no TensorFlow checkpoint; name its prefix, its .index file or its folder")
    arrays = {
        name: value
        for name, value in stored.checkpoint(prefix).items()
        if np.issubdtype(value.dtype, np.floating) and not NO_WEIGHT.search(name)
    }
    known = _by_network(network, shape) if network and shape else _by_graph(prefix)
    if known and all(name in arrays for name in known):
        found = {weight.name: weight.neutral(arrays[name]).astype(np.float32) for name, weight in known.items()}
        # what no layer has as its own, such as a kernel that is split for groups: by its name and shape
        rest = {neutral_name(name): value for name, value in arrays.items() if name not in known}
        return {
            **{name: plain(name, value.shape).neutral(value).astype(np.float32) for name, value in rest.items()},
            **found,
        }
    return _by_name(prefix, arrays)


def _by_graph(prefix: Path) -> dict[str, Weight]:
    meta = prefix.with_name(prefix.name + ".meta")
    if not meta.is_file():
        return {}
    try:
        file = files.load(meta)
        weights = read_layers(file, file.shape).weights if file.shape else {}
    except ModelError:  # e.g. a graph that trains, with several ends
        return {}
    return {name.partition("/")[2]: weight for name, weight in weights.items()}


def _by_network(network: Path, shape: tuple[int, int, int]) -> dict[str, Weight]:
    file = files.load(network)
    return {file.own_name(name): weight for name, weight in read_layers(file, shape).weights.items()}


def _by_name(prefix: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    weights: dict[str, Any] = {}
    for name, value in arrays.items():
        found = OBJECT.match(name)
        path = found[1] if found else name
        if found and re.search(r"(^|/|-)\d+(/|$)", path):
            raise ModelError(
                f"{prefix}: is a checkpoint of a model whose layers are numbered, not named, as Keras does; export the model "
                "with model.export(FOLDER) and use that folder as network file"
            )
        neutral = neutral_name(path)
        layout = depthwise if re.search(r"depthwise_(weights|kernel)$", path) else plain
        weights[neutral if neutral not in weights else path.replace("/", ".")] = (
            layout(neutral, value.shape).neutral(value).astype(np.float32)
        )
    _check_dense(prefix, weights)
    if not weights:
        raise ModelError(f"{prefix}: this checkpoint holds no weights")
    return weights


def _check_dense(prefix: Path, weights: Mapping[str, Any]) -> None:
    """Whether the order of every dense layer's inputs can be told: not where they are a flattened image."""
    name = dense_over_image(weights)
    if name is not None:
        raise ModelError(
            f"{prefix}: {name} takes {weights[name].shape[1]} inputs, which seem to be a flattened image; the order of its axes "
            f"is the graph's alone: put {prefix.name}.meta of the network as it predicts beside the checkpoint"
        )


def dense_over_image(weights: Mapping[str, Any]) -> str | None:
    """A dense layer's weights whose inputs no other layer makes as such."""
    made = {value.shape[0] for value in weights.values() if value.ndim == 4}
    made |= {value.shape[1] for value in weights.values() if value.ndim == 4}
    made |= {value.shape[0] for value in weights.values() if value.ndim == 2}
    images = any(value.ndim == 4 for value in weights.values())
    return next(
        (name for name, value in weights.items() if images and value.ndim == 2 and value.shape[1] not in made), None
    )
