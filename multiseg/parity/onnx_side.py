"""An ONNX file as a side of a check: what onnxruntime computes for its layers, by the reference's names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multiseg import reference
from multiseg.backend import Backend
from multiseg.conversion.channels import orders_of_values
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.exporting.onnx_layers import KEEPS_VALUES
from multiseg.layout import Layout
from multiseg.parity import comparing
from multiseg.parity.check import Check
from multiseg.parity.rows import ParityRow
from multiseg.parity.side import ParitySide, shaped
from multiseg.parity.weights import has_colour_output
from multiseg.reference.bounded import Array
from multiseg.topology.words import listed
from multiseg.worker.client import Worker


def title(path: Path) -> str:
    """Return the name of the side of an ONNX file."""
    return f"ONNX ({path.name})"


def compare(check: Check, path: Path, backend: Backend, worker: Worker) -> None:
    """Add the comparison of an ONNX file with the reference of ``check``, in prediction; ``worker`` is one of ``backend``.

    Raises ModelError if onnxruntime cannot compute the file.
    """
    if check.golden is None and check.plan.entries[0].weights is None:
        raise SettingsError(
            f"{path}: contains weights, which the reference must have, too: specify those that it was exported with, "
            f"{setting('weights', example='FILE')}, or a run folder as the first model"
        )
    side = OnnxSide(check, path, backend, worker)
    check.parity.sides.append(side.name)
    try:
        with np.errstate(all="ignore"):  # rows report numbers that are not finite
            rows = comparing.forward(
                side, check.plan.batch(0), check.start, check.start, check.whole, None, check.plan.subtracted
            )
    except reference.NotComputable as error:
        check.parity.left_out.append(f"{side.name}: the layers: {error}")
        return
    check.parity.rows += rows
    check.parity.notes.append(f"{side.name}: {side.compared(rows)}; an ONNX file is compared in prediction")
    names = [layer.name for layer in side.absent() if layer.type not in KEEPS_VALUES]
    if names:
        check.parity.left_out.append(f"{side.name}: {listed(names)}, of which the file has no tensors")
    if side.metadata.get("multiseg.output"):
        check.parity.left_out.append(
            f"{side.name}: its {side.metadata['multiseg.output']}, only what they are chosen from"
        )


class OnnxSide(ParitySide):
    """An ONNX file that onnxruntime computes in a worker; its weights are those in the file.

    The metadata of a file of `multiseg export` state its tensors by the values of the network and the order of its colours. In
    other files tensors with the names of values are compared, and the first output.
    """

    def __init__(self, check: Check, path: Path, backend: Backend, worker: Worker) -> None:
        self._file = {"path": str(path)}
        self._module = str(backend.onnx).partition(":")[0]
        self._worker = worker
        described = self._call("described")
        self.metadata: dict[str, str] = described["metadata"]
        order = self.metadata.get("multiseg.channel_order", "RGB")
        reversed_colours = order == "BGR"
        first = check.first
        colours = (
            reversed_colours and first.input_shape[0] == 3,
            reversed_colours and has_colour_output(check.label_shape, first),
        )
        layout = Layout("NCHW", "BGR" if reversed_colours else "RGB", check.plan.mean, std=check.plan.std)
        super().__init__(title(path), backend, worker, path, first, first, layout, colours)
        if len(described["inputs"]) != 1:
            raise ModelError(f"{path}: has {len(described['inputs'])} inputs; parity supports networks with one")
        (_, self._type), *_ = described["inputs"]
        self._orders = orders_of_values(first, *colours) if any(colours) else {}
        self._tensors = self._names(described["tensors"], described["outputs"][0][0])

    def _names(self, tensors: list[str], output: str) -> dict[str, str]:
        """Return the tensors of the file by the reference's values."""
        stated: Mapping[str, Any] = {}
        if "multiseg.layers" in self.metadata:
            try:
                stated = dict(json.loads(self.metadata["multiseg.layers"]))
            except (ValueError, TypeError) as error:
                raise ModelError(f"{self.path}: its metadata multiseg.layers is not a JSON object of names") from error
        own = [name for layer in self.reference.layers for name in layer.outputs]
        names = {name: str(stated.get(name, name)) for name in own}
        last = self.reference.outputs[0]
        found = {name: tensor for name, tensor in names.items() if tensor in tensors}
        return found if "multiseg.output" in self.metadata else {**found, last: output}

    def _call(self, function: str, **arguments: Any) -> Any:
        return self._worker.call("read", module=self._module, function=function, arguments={**self._file, **arguments})

    def _features(self, features: Array) -> Array:
        """Return images as the file takes them: with the mean subtracted, or as they are read."""
        if self.metadata.get("multiseg.preprocessing"):
            return features.astype(self._type)
        return self.layout.features(features)

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Do nothing: the file has its weights, which must be the reference's."""

    def predict(self, features: Array, labels: Array | None) -> tuple[Array, float | None, dict[str, Array]]:
        arrays = self._call("compute", batch=[self._features(features)], names=list(self._tensors.values()))
        values = {name: self._value(name, array) for name, array in zip(self._tensors, arrays, strict=True)}
        last = self.reference.outputs[0]
        if last not in values:
            raise ModelError(f"{self.path}: has no tensor of the output {last!r}")
        return values[last], None, values

    def output(self, features: Array) -> Array:
        """Return the output (N, ...) as users compute it: without further tensors, onnxruntime computes several layers as one."""
        last = self.reference.outputs[0]
        (array,) = self._call("compute", batch=[self._features(features)], names=[self._tensors[last]])
        return self._value(last, array)

    def _value(self, name: str, tensor: Array) -> Array:
        """Return the reference's value ``name`` of its tensor, with the channels in the reference's order."""
        own = np.take(tensor, np.argsort(self._orders[name]), 1) if name in self._orders else tensor
        return shaped(own, self.reference.shapes[name])

    def compared(self, rows: list[ParityRow]) -> str:
        """Return how many layers were compared, in words."""
        names = {row.name for row in rows if row.stage == "forward"}
        count = sum(any(name in names for name in layer.outputs) for layer in self.reference.layers)
        return f"{count} of {len(self.reference.layers)} layers compared"

    def absent(self) -> list[Any]:
        """Return the layers of which the file has no tensor."""
        return [layer for layer in self.reference.layers if not any(name in self._tensors for name in layer.outputs)]
