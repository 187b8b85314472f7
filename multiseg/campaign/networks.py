"""Random networks over the whole vocabulary, each with weights, a batch, a loss and a solver."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from multiseg.campaign.layers import DRAWN
from multiseg.errors import ModelError
from multiseg.network import CLASSES
from multiseg.parity.case import Case
from multiseg.parity.start import start_weights
from multiseg.reference.bounded import Array
from multiseg.settings.losses import BINARY, LABEL_MAX, LOSSES
from multiseg.settings.solvers import NEUTRAL
from multiseg.topology import Shape, Topology

LARGEST = 1500  # elements of a value for one image, so that a network takes milliseconds
TRIES = 60
STEPS = 2
IGNORE = 255
POSITIVE = ("Log", "Sqrt", "Pow")  # of a positive input; it is made so by a Softplus before them
BINARY_TYPES = ("Sum", "Max", "Mul", "Add", "Sub", "Div")  # with two inputs of one shape, or a constant


def draw_case(seed: int, number: int, most: int = 7) -> Case:
    """Return the random network ``number`` of the campaign ``seed``: at most ``most`` drawn layers, and those that they need."""
    for attempt in range(TRIES):
        draw = random.Random(f"{seed} {number} {attempt}")
        try:
            return _Drawing(draw, f"network{number}.net").case(draw.randint(1, most))
        except ModelError:
            continue  # layers that do not fit together
    raise AssertionError(f"no network fits for seed {seed}, number {number}")


class _Drawing:
    """A network that grows by one random layer at a time."""

    def __init__(self, draw: random.Random, title: str) -> None:
        self.draw, self.title = draw, title
        self.numbers = np.random.default_rng(draw.getrandbits(32))
        self.input_shape = (draw.choice([1, 3, 4]), draw.randint(4, 9), draw.randint(4, 9))
        self.layers: list[dict[str, Any]] = []
        self.shapes: dict[str, Shape] = {"data": self.input_shape}

    def topology(self, outputs: list[str]) -> Topology:
        """Return the layers as a topology. Raises ModelError if they do not fit together."""
        description = {"input": "data", "input_shape": self.input_shape, "layers": self.layers, "outputs": outputs}
        return Topology.of(self.title, "random", description)

    def add(self, kind: str, inputs: list[str], parameters: Mapping[str, Any] | None = None, outputs: int = 1) -> str:
        """Append a layer and return its first output. Raises ModelError if it cannot take its inputs."""
        name = f"layer{len(self.layers) + 1}"
        names = [name] if outputs == 1 else [f"{name}_{number}" for number in range(outputs)]
        layer = {"name": name, "type": kind, "inputs": inputs, "parameters": dict(parameters or {}), "outputs": names}
        self.layers.append(layer)
        try:
            shapes = self.topology([names[0]]).layers[-1].shapes
            if any(not shape or min(shape) < 1 or np.prod(shape) > LARGEST for shape in shapes):
                raise ModelError(f"{name}: its outputs have the shapes {shapes}")
        except (ModelError, ValueError, KeyError, IndexError, TypeError, ZeroDivisionError) as error:
            self.layers.pop()
            raise ModelError(str(error)) from error
        self.shapes.update(zip(names, shapes, strict=True))
        return names[0]

    def case(self, count: int) -> Case:
        """Return a case of ``count`` drawn layers. Raises ModelError if too few fit."""
        last = "data"
        if self.draw.random() < 0.7:
            last = self.add("Conv", [last], DRAWN["Conv"](self.draw, self.input_shape))
        tries = 0
        while count and tries < TRIES:
            tries += 1
            kind = self.draw.choice(sorted(DRAWN))
            first = last if self.draw.random() < 0.7 else self.draw.choice(list(self.shapes))
            kept = list(self.layers), dict(self.shapes)
            try:
                last, count = self._layer(kind, first), count - 1
            except ModelError:
                self.layers, self.shapes = kept
        return self._finished(last)

    def _layer(self, kind: str, first: str) -> str:
        """Append a layer of a type and those that it needs, and return its output."""
        shape = self.shapes[first]
        if kind == "MaxUnpool":
            parameters = {
                "kernel_shape": [2, 2],
                "strides": [2, 2],
                "ceil_mode": self.draw.random() < 0.5,
                "indices": True,
            }
            pooled = self.add("MaxPool", [first], parameters, outputs=2)
            indices = pooled[:-1] + "1"
            self.shapes.pop(indices)  # integers, of which no other layer computes
            return self.add(kind, [pooled, indices], {"sizes": list(shape[1:])})
        if kind in POSITIVE:
            first = self.add("Softplus", [first])
        if kind == "Exp":
            first = self.add("Tanh", [first])
        parameters = DRAWN[kind](self.draw, shape)
        inputs = [first]
        if kind in BINARY_TYPES and parameters.get("value") is None:
            parameters.pop("value", None)
            second = self._alike(first)
            inputs.append(
                self.add("Add", [self.add("Softplus", [second])], {"value": 0.5}) if kind == "Div" else second
            )
        if kind == "Concat":
            inputs.append(self.draw.choice(list(self.shapes)))
        if kind == "Crop":
            inputs.append(self.draw.choice(list(self.shapes)))
        outputs = 2 if kind == "Split" else 1
        name = self.add(kind, inputs, parameters, outputs)
        return name if outputs == 1 else self.add("Concat", [name[:-1] + "1", name], {"axis": parameters["axis"]})

    def _alike(self, value: str) -> str:
        """Return a value of the same shape, if possible another one."""
        alike = [name for name, shape in self.shapes.items() if shape == self.shapes[value] and name != value]
        return self.draw.choice(alike) if alike else self.add("Tanh", [value])

    def _finished(self, last: str) -> Case:
        """Append a layer of scores, in some cases its probabilities, and draw the loss, the solver and all arrays."""
        shape = self.shapes[last]
        if len(shape) == 2:
            last = self.add("Reshape", [last], {"shape": [0, -1, 1]})
        outputs = self.draw.randint(1, 4)
        loss = self.draw.choice([name for name, row in LOSSES.items() if row.labels != CLASSES or outputs > 1])
        if len(self.shapes[last]) == 1:
            last = self.add("Gemm", [last], {"num_output": outputs})
            if LOSSES[loss].labels != CLASSES:  # labels of images are compared with images
                last = self.add("Reshape", [last], {"shape": [-1, 1, 1]})
        else:
            last = self.add("Conv", [last], {"num_output": outputs, "kernel_shape": [1, 1]})
        if loss == BINARY and self.draw.random() < 0.3:
            last = self.add("Sigmoid", [last])
        elif LOSSES[loss].labels == CLASSES and self.draw.random() < 0.4:
            last = self.add("Softmax", [last], {"axis": 1})
        topology = self.topology([last])
        used = topology.leading
        topology = self._only(topology, {layer.name for layer in used})
        solver = self.draw.choice(sorted(NEUTRAL))
        options = {**NEUTRAL[solver].options, "weight_decay": self.draw.choice([0.0, 0.0, 1e-2])}
        count = self.draw.randint(2, 3)
        images = self.numbers.normal(size=(count, *self.input_shape)).astype(np.float32)
        loss_options = dict(LOSSES[loss].parameters)
        if LABEL_MAX in loss_options:
            loss_options[LABEL_MAX] = self.draw.choice([1.0, 255.0])
        ignore = IGNORE if LOSSES[loss].labels == CLASSES or loss == BINARY else None
        ignore = ignore if self.draw.random() < 0.6 else None
        weighted = LOSSES[loss].weighted and self.draw.random() < 0.5
        return Case(
            topology, start_weights(topology, self.draw.getrandbits(16)), images,
            self._labels(loss, topology.shapes[last], count, loss_options, ignore), loss, loss_options,
            tuple(round(self.draw.uniform(0.2, 3), 2) for _ in range(outputs)) if weighted else (),
            LOSSES[loss].labels == CLASSES, ignore, {"name": solver, **options}, self._rate(solver), STEPS,
            self.draw.randint(1, 1000),
        )  # fmt: skip

    def _only(self, topology: Topology, names: set[str]) -> Topology:
        """Return the topology of the layers ``names`` alone."""
        self.layers = [layer for layer in self.layers if layer["name"] in names]
        return self.topology(list(topology.outputs))

    def _rate(self, solver: str) -> float:
        return float(self.draw.choice([NEUTRAL[solver].rate, 1e-2]))

    def _labels(
        self, loss: str, output: Shape, count: int, options: Mapping[str, float], ignore: int | None
    ) -> Array:  # fmt: skip
        """Return labels (N, C, H, W), as many as the loss compares, of which some are ignored."""
        size = tuple(output[1:]) or (1, 1)
        if LOSSES[loss].labels == CLASSES:
            labels = self.numbers.integers(0, output[0], (count, 1, *size)).astype(np.float32)
        elif loss == BINARY:
            labels = self.numbers.integers(0, 2, (count, output[0], *size)).astype(np.float32) * options[LABEL_MAX]
            if options[LABEL_MAX] == IGNORE:
                return labels.astype(np.float32)
        else:
            return self.numbers.normal(size=(count, output[0], *size)).astype(np.float32)
        if ignore is not None:
            labels[self.numbers.random(labels.shape) < 0.2] = ignore
        return labels.astype(np.float32)
