"""Starting from given weights, by layer name, and leaving layers as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multiseg.errors import ModelError, SettingsError
from multiseg.model_files import read_weights
from multiseg.network import is_frozen
from multiseg.worker.client import Worker


def start_from(path: Path, worker: Worker) -> dict[str, list[str]]:
    """Give a loaded network the weights in ``path`` that fit it by name and shape; what else it has stays as it is.

    Returns names of parameters: ``matched``, ``missing`` (in the file), ``unused`` (of the file), ``reshaped`` (of another
    shape there). Raises ModelError where the file cannot be read or nothing in it fits.
    """
    given, own = read_weights(path), worker.call("get_weights")
    matched = [name for name in own if name in given and given[name].shape == own[name].shape]
    if not matched:
        raise ModelError(
            f"{path}: no weights in it fit the network by name and shape; it has {_names(given)}, "
            f"the network {_names(own)}"
        )
    worker.call("set_weights", weights={**own, **{name: given[name] for name in matched}})
    return {
        "matched": matched,
        "missing": [name for name in own if name not in given],
        "unused": [name for name in given if name not in own],
        "reshaped": [name for name in own if name in given and name not in matched],
    }


def check_frozen(patterns: Sequence[str], parameters: Mapping[str, Any]) -> None:
    """Raise SettingsError where a pattern names no layer, or nothing is left to train."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in parameters))
    for pattern in patterns:
        if not any(is_frozen(name, [pattern]) for name in parameters):
            raise SettingsError(f"freeze={pattern!r}: the network has no such layer; it has: {', '.join(layers)}")
    if parameters and all(is_frozen(name, patterns) for name in parameters):
        raise SettingsError(f"freeze={list(patterns)!r}: leaves no layer to train")


def _names(weights: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in weights.items()) or "none"
