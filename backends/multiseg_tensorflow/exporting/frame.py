"""Write the frame of a DIGITS TensorFlow file: imports, the class UserModel, the loss."""

from __future__ import annotations

from multiseg.topology import Layer, Topology
from multiseg.topology.notes import comments
from multiseg.topology.objective import Objective
from multiseg.topology.python_source import PythonWriter
from multiseg.topology.writing import (
    axis,
    distinct,
    identifiers,
    number,
)  # fmt: skip
from multiseg_tensorflow.exporting.text import FUNCTIONS, PLACES, RESERVED, scope_name

NEUTRAL = (0, 2, 3, 1)  # for each axis of an NHWC tensor, its index in N, C, H, W
LEAST_EPSILON = 1.001e-5  # minimum of TensorFlow's fused batch normalisation, which replaces a smaller epsilon by it


class TowerFrame(PythonWriter):
    """Base of the writer: imports, the class UserModel, the loss. ``steps`` are the statements of ``inference``."""

    title = "TensorFlow"
    module = "tf"

    def __init__(self, topology: Topology, objective: Objective | None = None) -> None:
        super().__init__(topology, objective)
        self.scopes = distinct((layer.name for layer in self.layers), scope_name)
        values = [*topology.inputs, *(value for layer in self.layers for value in layer.outputs)]
        self.values = identifiers(values, {*RESERVED, *FUNCTIONS})
        self.values[topology.input] = "self.x"
        self.steps: list[str] = []
        for name, shape in topology.more_inputs.items():
            sizes = ", ".join(map(str, (*shape[1:], shape[0])))
            self.steps.append(
                f"{self.values[name]} = tf.placeholder(tf.float32, [None, {sizes}], '{scope_name(name)}')"
            )

    def text(self) -> str:
        """Return the source of the whole file."""
        topology = self.topology
        loss = self._loss() if topology.trains else ""
        code = "\n".join([*self.steps, loss])
        used: list[str] = []
        for name, function in FUNCTIONS.items():
            if f"{name}(" in code or f"={name}" in code or any(f"{name}(" in other for other in used):
                used.append(function)
        lines = [
            f"# {topology.source} ({topology.kind}) in TensorFlow 1, as DIGITS loads it, for images of {self.size}",
            "# (channels, height, width).",
            *(f"# {sentence}" for sentence in self.ends(self._input_names(), topology.titles)),
            *comments(self.notes),
            "from model import Tower",
            "from utils import model_property",
            "import tensorflow as tf",
            *["import tensorflow.contrib.slim as slim"] * ("slim." in code),
            *["import utils as digits"] * ("digits." in code),
            *self.matrix_lines(),
            *"\n".join(["", *used]).splitlines(),
            "",
            "",
            "class UserModel(Tower):",
            "",
            "    @model_property",
            "    def inference(self):",
            *(f"        {line}" for line in self.steps),
            f"        return {', '.join(self.values[value] for value in topology.outputs)}",
            *(["", "    @model_property", "    def loss(self):", f"        return {loss}"] if loss else []),
        ]
        return "\n".join(lines) + "\n"

    def _input_names(self) -> dict[str, str]:
        """Return the names of the inputs for users: that of the images, and the placeholders of the others."""
        return {self.topology.input: "self.x", **{name: scope_name(name) for name in self.topology.more_inputs}}

    def _loss(self) -> str:
        """Return the expression of the loss.

        It compares the scores, not their probabilities, whose loss is infinite where a confident prediction is wrong.
        """
        own = self.objective
        if own is None:
            return "digits.mse_loss(self.inference, self.y)"
        scores = "self.inference" if self.scores is None else "self.scores"
        if own.kind == "softmax" and own.is_mean and not own.ignore:
            return f"digits.classification_loss({scores}, self.y)"
        options = [f"ignore={own.ignore!r}"] if own.ignore else []
        options += [
            f"{key}={number(value)}"
            for key, value in (("weight", own.weight), ("label_scale", own.label_scale))
            if value != 1
        ]
        options += ["matrix=MATRIX"] if own.matrix is not None else []
        function = "class_loss" if own.kind == "softmax" else "sigmoid_loss"
        return f"{function}({', '.join([scores, 'self.y', repr(own.normalization), *options])})"

    def _assign(self, layer: Layer, expression: str, size_specific: bool = False) -> None:
        """Append the statement that assigns a layer's outputs; mark it if it is valid for this image size only."""
        if len(layer.outputs) == 1 and self.passes_on(layer.outputs[0]):
            self.values[layer.outputs[0]] = "net"
        targets = ", ".join(self.values[value] for value in layer.outputs)
        note = f"  {self.only}" if size_specific else ""
        self.steps.append(f"{targets} = {expression}{note}")
        if self.scores in layer.outputs:
            self.steps.append(f"self.scores = {self.values[self.scores]}")

    def _first(self, layer: Layer) -> str:
        return self.values[layer.inputs[0]]

    def _place(self, layer: Layer, index: int | None = None) -> int:
        """Return the index of a layer's axis in the tensor, which is NHWC for images."""
        shape = self.input_shape(layer)
        neutral = axis(layer, shape, index)
        return PLACES[neutral] if len(shape) == 3 else neutral
