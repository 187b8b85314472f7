"""Write the frame of a PyTorch file: imports, the class of the module, the loss."""

from __future__ import annotations

import re
from pathlib import PurePath

from multiseg.errors import ModelError
from multiseg.topology import Layer, Topology
from multiseg.topology.notes import comments
from multiseg.topology.objective import Objective
from multiseg.topology.python_source import PythonWriter
from multiseg.topology.writing import identifiers, number
from multiseg_torch.exporting.text import (
    BATCH_NORM,
    BILINEAR,
    CLASS_LOSS,
    FROZEN_NORM,
    RESERVED,
    SCALE,
    SIGMOID_LOSS,
    WITHOUT,
)


class ModuleFrame(PythonWriter):
    """Base of the writer: imports, the module's class, the loss. ``constructors`` are lines of __init__, ``steps`` of forward."""

    title = "PyTorch"
    module = "torch"

    def __init__(self, topology: Topology, objective: Objective | None = None) -> None:
        super().__init__(topology, objective)
        names = [layer.name for layer in self.layers]
        self.modules = identifiers(names, RESERVED)
        values = [*topology.inputs, *(value for layer in self.layers for value in layer.outputs)]
        self.values = identifiers(values, RESERVED)
        self.constructors: list[str] = []  # lines of __init__
        self.steps: list[str] = []  # lines of forward
        if self.passes_on(topology.input):
            self.values[topology.input] = "x"

    def text(self) -> str:
        """Return the complete file."""
        topology, loss = self.topology, self._loss() if self.topology.trains else ""
        outputs = [self.values[value] for value in topology.outputs]
        stem = re.sub(r"\W", "_", PurePath(topology.source).stem, flags=re.ASCII)
        name = "".join(part[:1].upper() + part[1:] for part in stem.split("_"))
        name = (
            name if name[:1].isalpha() and name not in ("Scale", "ClassLoss", "SigmoidLoss", "MATRIX") else f"Net{name}"
        )
        norms = [
            text.format(name=norm)
            for norm in ("BatchNorm1d", "BatchNorm2d")
            for prefix, text in (("Frozen", FROZEN_NORM), ("ByBatch", BATCH_NORM))
            if any(f"{prefix}{norm}(" in line for line in self.constructors)
        ]
        bilinear = [BILINEAR] * any(line.startswith("bilinear(") for line in self.constructors)
        without = [WITHOUT] * any(" = without(" in line for line in self.constructors)
        classes_used = bilinear + [SCALE] * any("Scale(" in line for line in self.constructors) + norms + without
        for start, text in (("ClassLoss", CLASS_LOSS), ("SigmoidLoss", SIGMOID_LOSS)):
            scores = "output.scores" if self.scores else "output"
            text = text.replace("SCORES", scores).replace("OF_OUTPUT", str(self.scores is None))
            classes_used += [text] * loss.startswith(start)
        used = "\n".join([*self.constructors, *self.steps, *classes_used])
        lines = [
            *self._docstring(),
            *comments(self.notes),
            "",
            *["import torch"] * ("torch." in used),
            *["import torch.nn.functional as F"] * bool(re.search(r"\bF\.", used)),
            "from torch import nn",
            *self.matrix_lines(),
            *"".join(classes_used).splitlines(),
            "",
            "",
            f"class {name}(nn.Module):",
            "    def __init__(self):",
            "        super().__init__()",
            *(f"        {line}" for line in self.constructors),
            "",
            f"    def forward(self, {', '.join(self.values[name] for name in topology.inputs)}):",
            *(f"        {line}" for line in self.steps),
            *[f"        {outputs[0]}.scores = scores  # the loss compares these"] * (self.scores is not None),
            f"        return {', '.join(outputs)}",
            "",
            "",
            "def network(params):",
            '    """params["inputShape"] is [channels, height, width]."""',
            f'    return {{"model": {name}()' + (f', "loss": {loss}' if loss else "") + self._shapes() + "}",
        ]
        return "\n".join(lines) + "\n"

    def _shapes(self) -> str:
        shapes = [list(shape) for shape in self.topology.inputs.values()]
        return f', "inputShapes": {shapes}' if len(shapes) > 1 else ""

    def _docstring(self) -> list[str]:
        topology = self.topology
        head = f"{topology.source} ({topology.kind}) in PyTorch, for images of {self.size} (channels, height, width)."
        ends = self.ends({name: self.values[name] for name in topology.inputs}, topology.titles)
        return [f'"""{head}', "", *ends, '"""'] if ends else [f'"""{head}"""']

    def _loss(self) -> str:
        """Return the constructor of the loss."""
        own = self.objective
        if own is None:
            return "nn.SmoothL1Loss()"
        normalization = f'"{own.normalization}"'
        changed = [
            f"{key}={number(value)}"
            for key, value in (("weight", own.weight), ("label_scale", own.label_scale))
            if value != 1
        ]
        if own.kind == "sigmoid":
            ignored = [f"ignore={own.ignore!r}"] if own.ignore else []
            return f"SigmoidLoss({', '.join([normalization, *ignored, *changed])})"
        if len(own.ignore) > 1:
            raise ModelError(
                f"{self.topology.source}: its loss ignores the labels {' and '.join(map(str, own.ignore))}, a loss in PyTorch "
                "one; use the same value"
            )
        ignored = [f"ignore_index={value}" for value in own.ignore]
        changed += ["matrix=MATRIX"] if own.matrix is not None else []
        if own.is_mean and self.scores is None:
            last = self.layers[-1].type if self.layers else ""
            name = "nn.NLLLoss" if last == "LogSoftmax" else "nn.CrossEntropyLoss"
            return f"{name}({', '.join(ignored)})"
        return f"ClassLoss({', '.join([normalization, *ignored, *changed])})"

    def _assign(self, layer: Layer, expression: str, here: bool = False) -> None:
        if len(layer.outputs) == 1 and self.passes_on(layer.outputs[0]):
            self.values[layer.outputs[0]] = "x"
        targets = ", ".join(self.values[value] for value in layer.outputs)
        self.steps.append(f"{targets} = {expression}{self._note(here)}")
        if self.scores in layer.outputs:
            self.steps.append(f"scores = {self.values[self.scores]}")

    def _note(self, here: bool) -> str:
        return f"  {self.only}" if here else ""

    def _module(self, layer: Layer, constructor: str, here: bool = False, pads: str = "", after: str = "") -> None:
        """Add a line to __init__ and one to forward; ``pads`` is a module called first, ``after`` is appended to the call."""
        name = self.modules[layer.name]
        called = ", ".join(self._inputs(layer))
        if pads:
            self.constructors.append(f"self.{name}_pad = {pads}")
            called = f"self.{name}_pad({called})"
        self.constructors.append(f"self.{name} = {constructor}{self._note(here)}")
        if layer.initial == "bilinear":
            self.constructors.append(f"bilinear(self.{name}.weight)")
        if layer.frozen:
            self.constructors.append(f"self.{name}.requires_grad_(False)")
        self._assign(layer, f"self.{name}({called}){after}")
