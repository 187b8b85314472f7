"""Common parts of writers of a described network as Python source: arithmetic and expressions that frameworks share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from multiseg.topology.layer import Layer
from multiseg.topology.objective import Objective
from multiseg.topology.topology import Topology
from multiseg.topology.writing import Writer, factors, number, parameter


class PythonWriter(Writer):
    """A writer whose layers are expressions over Python variables."""

    module: ClassVar[str]  # name of the framework's module in the source
    values: dict[str, str]  # the variable or expression of each value of the network

    def __init__(self, topology: Topology, objective: Objective | None = None) -> None:
        """``objective``: the loss of the file, see objective_of. Its ``scores`` are None where they are input or output."""
        super().__init__(topology)
        self.objective = objective
        scores = objective.scores if objective else None
        self.scores = None if scores in (topology.input, topology.outputs[0]) else scores

    def matrix_lines(self) -> list[str]:
        """Return the lines that assign the matrix of the loss, a row for each label, to MATRIX; none without one."""
        if self.objective is None or self.objective.matrix is None:
            return []
        rows = (f"[{', '.join(number(value) for value in row)}]" for row in self.objective.matrix)
        return ["", "MATRIX = [  # of the loss: a row for each label", *(f"    {row}," for row in rows), "]"]

    def _inputs(self, layer: Layer) -> list[str]:
        return [self.values[value] for value in layer.inputs]

    @abstractmethod
    def _assign(self, layer: Layer, expression: str, here: bool = False) -> None:
        """Assign an expression to the layer's output; ``here``: it is right only for images of the described size."""

    def arithmetic(self, layer: Layer) -> None:
        """Write an Add, Sub, Mul or Div of several inputs, or of one and a constant."""
        operator = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/"}[layer.type]
        values = self._inputs(layer)
        if len(values) == 1 and "value" in layer.parameters:
            values.append(number(layer.parameters["value"]))
        self._assign(layer, f" {operator} ".join(values).replace("+ -", "- "))

    def total(self, layer: Layer) -> None:
        """Write a Sum with its coefficients."""
        terms = [
            value if factor == 1 else f"-{value}" if factor == -1 else f"{number(factor)} * {value}"
            for factor, value in zip(factors(layer), self._inputs(layer), strict=True)
        ]
        self._assign(layer, " + ".join(terms).replace("+ -", "- "))

    def maximum(self, layer: Layer) -> None:
        """Write a Max of several inputs with the framework's function of two."""
        first, *others = self._inputs(layer)
        for other in others:
            first = f"{self.module}.maximum({first}, {other})"
        self._assign(layer, first)

    shared: ClassVar[Mapping[str, Callable[[PythonWriter, Layer], None]]] = {
        **dict.fromkeys(("Add", "Sub", "Mul", "Div"), arithmetic), "Sum": total, "Max": maximum,
    }  # fmt: skip


def grouped(layer: Layer) -> str:
    """Return groups and bias of a convolution as keyword arguments, without those that have the default (1 and True)."""
    groups = parameter(layer, "group")
    return (f", groups={groups}" if groups != 1 else "") + ("" if parameter(layer, "bias_term") else ", bias=False")


def bounds(start: int, end: int | None) -> str:
    """Return the text between the brackets of a slice."""
    return f"{start or ''}:{'' if end is None else end}"
