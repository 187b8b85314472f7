"""What tests of a backend look at within its process; only NumPy is needed there, and Python 3.9 runs it.

Each function returns what is wrong, in words.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from multiseg import network
from multiseg.network import Array, NetworkSpec
from multiseg.topology import interfaces


def signatures(module: str) -> list[str]:
    """Whether the class Network has the interface's methods with exactly its signatures, and no other public ones."""
    made = getattr(importlib.import_module(module), "Network", None)
    if made is None or not issubclass(made, network.Network):
        return [f"{module}.Network: must be there, a subclass of multiseg.network.Network"]
    names = sorted(network.Network.__abstractmethods__)
    problems = []
    for name in names:
        wanted, found = (inspect.signature(getattr(owner, name)) for owner in (network.Network, made))
        if getattr(made, name) is getattr(network.Network, name):
            problems.append(f"{module}.Network.{name}: is not there")
        elif wanted != found:
            problems.append(f"{module}.Network.{name}{found}: must be {name}{wanted}")
    more = sorted(name for name in vars(made) if not name.startswith("_") and name not in names)
    return problems + [f"{module}.Network.{name}: is not of the interface; begin its name with _" for name in more]


def file_signatures(module: str, reader: str, functions: Mapping[str, str]) -> list[str]:
    """Return what differs between a backend's file functions and the protocols of multiseg.topology.interfaces.

    ``functions`` maps ``exporter``, ``writer`` and ``onnx`` to "module:function", as far as the backend has them.
    """
    problems = []
    for name in ("describe", "read_weights"):
        problems += _differing(f"{reader}:{name}", getattr(interfaces.Reader, name))
    protocols = {
        "exporter": interfaces.Exporter,
        "writer": interfaces.WeightsWriter,
        "onnx": interfaces.OnnxWriter,
    }
    for role, path in functions.items():
        problems += _differing(path, protocols[role].__call__)
    return problems


def _differing(path: str, wanted: Any) -> list[str]:
    module, _, name = path.partition(":")
    function = getattr(importlib.import_module(module), name, None)
    if function is None:
        return [f"{path}: is missing"]
    names = list(inspect.signature(wanted).parameters)[1:]  # without self
    actual = list(inspect.signature(function).parameters)
    return [] if names == actual else [f"{path}: takes ({', '.join(actual)}); it must take ({', '.join(names)})"]


def copies(
    module: str, spec: Mapping[str, Any], features: Array, labels: Array, others: Array, rate: float
) -> list[str]:
    """Whether arrays that the network takes and gives are its caller's: neither changes the other's any more."""
    made = importlib.import_module(module).Network(NetworkSpec.from_json(spec))
    problems = []
    try:
        got, kept = made.get_weights(), made.get_weights(state=True)
        before, kept_before = _copy(got), _copy(kept)
        output, _, activations = made.predict(features, None, activations=True)
        shown = _copy({"output": output, **activations})
        made.predict(others, None, activations=True)
        if not _same(shown, {"output": output, **activations}):
            problems.append("predict: what it returned changes when other images are predicted; return copies")
        made.train_step(features, labels, rate)
        if not _same(before, got):
            problems.append("get_weights: what it returned changes when the network is trained; return copies")
        if not _same(kept_before, kept):
            problems.append(
                "get_weights(state=True): what it returned changes when the network is trained; return copies"
            )
        given = _copy(before)
        made.set_weights(given)
        made.train_step(features, labels, rate)
        if not _same(before, given):
            problems.append("set_weights: what it was given changes when the network is trained; keep a copy")
        given = _copy(before)
        made.set_weights(given)
        for value in given.values():
            value += 1
        if not _same(before, made.get_weights()):
            problems.append("set_weights: the network changes with what it was given; keep a copy")
    finally:
        made.close()
    return problems


def _copy(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(value) for name, value in arrays.items()}


def _same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)
