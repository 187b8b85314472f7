"""Checks of a backend that run in its process; they need only NumPy and run on Python 3.9.

Each function returns a list of problems.
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

OPTIONAL = ("evaluate", "successor", "training_values")  # methods that a backend may leave to the interface


def signatures(module: str) -> list[str]:
    """Check that the class Network has the interface's methods with exactly its signatures, and no other public ones."""
    cls = getattr(importlib.import_module(module), "Network", None)
    if cls is None or not issubclass(cls, network.Network):
        return [f"{module}.Network: must be defined, as a subclass of multiseg.network.Network"]
    names = sorted(network.Network.__abstractmethods__)
    problems = []
    for name in names:
        required, actual = (inspect.signature(getattr(owner, name)) for owner in (network.Network, cls))
        if getattr(cls, name) is getattr(network.Network, name):
            problems.append(f"{module}.Network.{name}: is missing")
        elif required != actual:
            problems.append(f"{module}.Network.{name}{actual}: must be {name}{required}")
    for name in sorted(OPTIONAL):
        required, actual = (inspect.signature(getattr(owner, name)) for owner in (network.Network, cls))
        if required != actual:
            problems.append(f"{module}.Network.{name}{actual}: must be {name}{required}")
    extra = sorted(name for name in vars(cls) if not name.startswith("_") and name not in {*names, *OPTIONAL})
    return problems + [f"{module}.Network.{name}: is not in the interface; start its name with _" for name in extra]


def file_signatures(module: str, reader: str, functions: Mapping[str, str]) -> list[str]:
    """Return what differs between a backend's file functions and the protocols of multiseg.topology.interfaces.

    ``functions`` maps ``exporter``, ``writer``, ``onnx`` and ``alone`` to "module:function", as far as the backend has them.
    """
    problems = []
    for name in ("describe", "read_weights"):
        problems += _differing(f"{reader}:{name}", getattr(interfaces.Reader, name))
    protocols = {
        "exporter": interfaces.Exporter,
        "writer": interfaces.WeightsWriter,
        "onnx": interfaces.OnnxWriter,
        "alone": interfaces.AloneWriter,
    }
    for role, path in functions.items():
        problems += _differing(path, protocols[role].__call__)
    return problems


def _differing(path: str, required: Any) -> list[str]:
    module, _, name = path.partition(":")
    function = getattr(importlib.import_module(module), name, None)
    if function is None:
        return [f"{path}: is missing"]
    names = list(inspect.signature(required).parameters)[1:]  # without self
    actual = list(inspect.signature(function).parameters)
    return [] if names == actual else [f"{path}: takes ({', '.join(actual)}); it must take ({', '.join(names)})"]


def copies(
    module: str, spec: Mapping[str, Any], features: Array, labels: Array, others: Array, rate: float
) -> list[str]:
    """Check that the network copies arrays at its interface: neither side can change the other's arrays later."""
    net = importlib.import_module(module).Network(NetworkSpec.from_json(spec))
    problems = []
    try:
        weights, state = net.get_weights(), net.get_weights(state=True)
        before, state_before = _copy(weights), _copy(state)
        output, _, activations = net.predict(features, None, activations=True)
        results = _copy({"output": output, **activations})
        net.predict(others, None, activations=True)
        if not _same(results, {"output": output, **activations}):
            problems.append("predict: what it returned changes when other images are predicted; return copies")
        net.train_step(features, labels, rate)
        if not _same(before, weights):
            problems.append("get_weights: what it returned changes when the network is trained; return copies")
        if not _same(state_before, state):
            problems.append(
                "get_weights(state=True): what it returned changes when the network is trained; return copies"
            )
        argument = _copy(before)
        net.set_weights(argument)
        net.train_step(features, labels, rate)
        if not _same(before, argument):
            problems.append("set_weights: its argument changes when the network is trained; store a copy")
        argument = _copy(before)
        net.set_weights(argument)
        for value in argument.values():
            value += 1
        if not _same(before, net.get_weights()):
            problems.append("set_weights: the network changes when its argument is changed; store a copy")
    finally:
        net.close()
    return problems


def _copy(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(value) for name, value in arrays.items()}


def _same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)
