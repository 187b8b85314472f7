"""Write the frame of a prototxt: data layers, the network, the loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from multiseg.errors import ModelError
from multiseg.topology import Layer, Topology
from multiseg.topology.names import unused
from multiseg.topology.notes import comments
from multiseg.topology.objective import Objective
from multiseg.topology.writing import (
    Writer,
    distinct,
)  # fmt: skip
from multiseg_caffe.exporting.text import Fields, Word, fixed, indented, number_field

# Rules of layers. caffe.Net(file, caffe.TEST) has no stage; it gets the layers of deployment, as stage "deploy" does.
TRAINING = ("include", [("phase", Word("TRAIN"))])
VALIDATION = ("include", [("phase", Word("TEST")), ("stage", "val")])
DEPLOYMENT = ("include", [("phase", Word("TEST")), ("not_stage", "val")])
WITH_LABELS = [TRAINING, VALIDATION]
RESERVED = ("data", "label", "loss", "loss_difference", "loss_each")
# Layers that may overwrite their input (their gradients need only their output), and layers whose output may be overwritten.
IN_PLACE = ("Relu", "Dropout")
OVERWRITTEN = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization", "Scale", "Sum", "Concat", *IN_PLACE)


def _scaled(factor: float) -> list[tuple[str, Any]]:
    """Return the field of a data layer for values that are multiplied by ``factor``."""
    return [] if factor == 1 else [("transform_param", [("scale", number_field(factor))])]


def _with_mean(mean: Sequence[float] | None) -> list[tuple[str, Any]]:
    """Return the field of a data layer for a mean that is subtracted, a number for each channel as B, G, R."""
    return [] if mean is None else [("transform_param", [("mean_value", number_field(value)) for value in mean])]


def _weighted(factor: float) -> list[tuple[str, Any]]:
    return [] if factor == 1 else [("loss_weight", number_field(factor))]


class PrototxtFrame(Writer):
    """Writes the frame of a prototxt; a subclass writes the network's layers."""

    title = "Caffe"

    def __init__(self, topology: Topology, objective: Objective | None = None) -> None:
        super().__init__(topology)
        self.objective = objective
        self.names = distinct((layer.name for layer in self.layers), str, RESERVED)
        values = [*topology.inputs, *(value for layer in self.layers for value in layer.outputs)]
        self.blobs = distinct(values, lambda value: "data" if value == topology.input else value, ("label", "loss"))
        self.producers = {value: layer for layer in self.layers for value in layer.outputs}
        self.padding: dict[str, list[int]] = {}  # padding of values that only convolutions read, which then pad them
        self.added: set[str] = set()  # names that are not in the description
        self.lines: list[str] = []

    def text(self) -> str:
        """Return the text of the file."""
        topology, own = self.topology, self.objective
        ends = self._outputs()
        head = [
            f"# {topology.source} ({topology.kind}) in Caffe, for images of {self.size} (channels, height, width):",
            "# for training, validation and deployment, all in one." if topology.trains else "# without a loss.",
            *(f"# {sentence}" for sentence in self.ends(self.blobs, ends)),
            *comments([*self.notes, *self._weighted_note()]),
            f"name: {json.dumps(topology.source, ensure_ascii=False)}",
        ]
        body, self.lines = self.lines, []
        shape = [("shape", [("dim", size) for size in (1, *topology.input_shape)])]
        self._write("data", "Input", [], ["data"], [("input_param", shape), DEPLOYMENT])
        for rule in WITH_LABELS:
            self._write("data", "Data", [], ["data"], [*_with_mean(topology.mean), rule])
            self._write("label", "Data", [], ["label"], [*_scaled(1.0 if own is None else own.label_scale), rule])
        for name, size in topology.more_inputs.items():
            more = [("input_param", [("shape", [("dim", each) for each in (1, *size)])])]
            self._write(self._fresh(f"{self.blobs[name]}_input"), "Input", [], [self.blobs[name]], more)
        data, self.lines = self.lines, []
        output = self.blobs[topology.outputs[0]]
        if not topology.trains:
            pass
        elif own is not None:
            assert own.scores is not None
            kind = "SoftmaxWithLoss" if own.kind == "softmax" else "SigmoidCrossEntropyLoss"
            fields = [*_weighted(own.weight), *self._loss_fields(own), *WITH_LABELS]
            matrix = [] if own.matrix is None else [self._matrix(own.matrix)]
            kind = "InfogainLoss" if matrix else kind
            self._write("loss", kind, [self.blobs[own.scores], "label", *matrix], ["loss"], fields)
        else:
            subtract = [("eltwise_param", [("operation", Word("SUM")), ("coeff", 1), ("coeff", -1)])]
            per_image = [("reduction_param", [("operation", Word("ASUM")), ("axis", 1)])]
            mean = [("loss_weight", 1), ("reduction_param", [("operation", Word("MEAN"))])]
            self._write("loss_difference", "Eltwise", [output, "label"], ["loss_difference"], [*subtract, *WITH_LABELS])
            self._write("loss_each", "Reduction", ["loss_difference"], ["loss_each"], [*per_image, *WITH_LABELS])
            self._write("loss", "Reduction", ["loss_each"], ["loss"], [*mean, *WITH_LABELS])
        return "\n".join([*head, *data, *body, *self.lines]) + "\n"

    def _outputs(self) -> list[str]:
        """Return the blobs of the outputs. Of several, those that another layer reads get a blob of their own, as Caffe's are."""
        values = self.topology.outputs
        ends = [self.blobs[value] for value in values]
        for place, value in enumerate(values):
            if len(values) > 1 and self.readers[value]:
                ends[place] = self._fresh(f"{self.blobs[value]}_output")
                self._write(ends[place], "Split", [self.blobs[value]], [ends[place]], [])
        return ends

    def _weighted_note(self) -> list[str]:
        """Return the note for a loss that is divided by the sum of the labels' weights, which no layer of Caffe does."""
        if self.objective is None or self.objective.normalization != "weighted":
            return []
        return [
            f"the loss of {self.topology.source} is divided by the sum of the weights of its labels; Caffe's is divided by their "
            "number"
        ]

    def _matrix(self, matrix: Sequence[Sequence[float]]) -> str:
        """Append constant layers for the matrix of an InfogainLoss, one value for each run of equal elements; return its blob."""
        runs = [(value, len(list(equal))) for value, equal in groupby(value for row in matrix for value in row)]
        names = [self._fresh(f"loss_matrix_{number}") for number in range(len(runs))]
        shapes = [("shape", [("dim", count)]) for _, count in runs]
        fillers = [("data_filler", [("value", number_field(value))]) for value, _ in runs]
        self._write(
            self._fresh("loss_matrix_values"),
            "DummyData",
            [],
            names,
            [("dummy_data_param", [*shapes, *fillers]), *WITH_LABELS],
        )
        name = self._fresh("loss_matrix")
        self._write(name, "Concat", names, [name], [("concat_param", [("axis", 0)]), *WITH_LABELS])
        return name

    def _loss_fields(self, own: Objective) -> list[tuple[str, Any]]:
        """Return the field loss_param of a cross entropy, unless it has Caffe's defaults."""
        if len(own.ignore) > 1:
            raise ModelError(
                f"{self.topology.source}: its loss ignores the labels {' and '.join(map(str, own.ignore))}, Caffe's one; use the "
                "same value"
            )
        divisor = "valid" if own.normalization == "weighted" else own.normalization  # see _weighted_note
        default = "valid" if own.kind == "softmax" else "batch_size"
        fields: list[tuple[str, Any]] = [("ignore_label", value) for value in own.ignore]
        fields += [("normalization", Word(divisor.upper()))] if divisor != default else []
        return [("loss_param", fields)] if fields else []

    def _write(self, name: str, type: str, bottoms: Sequence[str], tops: Sequence[str], fields: Fields) -> None:
        """Append a layer to the file."""
        blobs = [*(("bottom", bottom) for bottom in bottoms), *(("top", top) for top in tops)]
        self.lines += ["layer {", *indented([("name", name), ("type", type), *blobs, *fields]), "}"]

    def _layer(self, layer: Layer, type: str, fields: Fields = (), here: bool = False) -> None:
        """Append one layer of the same name, in-place where this is safe.

        ``here`` adds a comment that the layer is right for this size of images only.
        """
        bottoms = [self.blobs[value] for value in layer.inputs]
        one_of_several = len(self.topology.outputs) > 1 and layer.outputs[0] in self.topology.outputs
        if layer.type in IN_PLACE and self._may_overwrite(layer.inputs[0]) and not one_of_several:
            self.blobs[layer.outputs[0]] = bottoms[0]
        if here:
            self.lines.append(self.only)
        # an unread mask of a pooling would be another output of the network
        read = [value for value in layer.outputs[1:] if self.readers[value] or value in self.topology.outputs]
        values = [layer.outputs[0], *read] if layer.type == "MaxPool" else layer.outputs
        tops = [self.blobs[value] for value in values]
        self._write(self.names[layer.name], type, bottoms, tops, [*fixed(layer), *fields])

    def _may_overwrite(self, value: str) -> bool:
        """Return whether the only reader of a value may overwrite it."""
        producer = self.producers.get(value)
        compared = self.objective is not None and value == self.objective.scores
        one_reader = len(self.readers[value]) == 1 and value not in self.topology.outputs and not compared
        return one_reader and producer is not None and producer.type in OVERWRITTEN

    def _fresh(self, name: str) -> str:
        """Return a unique name for a layer and its blob that are not in the description."""
        taken = {*self.names.values(), *self.blobs.values(), *self.added, *RESERVED}
        unique = unused(name, taken)
        self.added.add(unique)
        return unique
