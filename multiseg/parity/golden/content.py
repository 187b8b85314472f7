"""The JSON of a golden file, and the check that its arrays are those of the network that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multiseg.errors import ModelError
from multiseg.parity.golden.golden import Golden
from multiseg.parity.reference_values import ReferenceValues
from multiseg.reference.bounded import Array, Bounded
from multiseg.schema import (
    FLAG,
    NUMBER,
    OBJECT,
    POSITIVE,
    SHAPE,
    TEXT,
    WHOLE,
    Kind,
    Schema,
    list_of,
    mapping_of,
    optional,
    or_none,
    problem,
)
from multiseg.settings.losses import LOSSES
from multiseg.settings.solvers import NEUTRAL, option_problems
from multiseg.topology import Topology
from multiseg.topology.objective import KINDS, NORMALIZATIONS

COUNT = Kind("a whole number from 0", lambda value: WHOLE.valid(value) and value >= 0)
TEXTS = list_of(TEXT, "a list of texts")
NUMBERS = list_of(NUMBER, "a list of numbers")
SIZES = list_of(POSITIVE, "a list of positive whole numbers")
LABELS = Kind("images or classes", lambda value: value in ("images", "classes"))
LOSS = Kind(f"one of {', '.join(LOSSES)}", lambda value: isinstance(value, str) and value in LOSSES)
SOLVER = Kind(
    f"one of {', '.join(NEUTRAL)} with its options",
    lambda value: (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and value["name"] in NEUTRAL
        and set(value) <= {"name", "weight_decay", *NEUTRAL[value["name"]].options}
        and not option_problems(value["name"], {key: each for key, each in value.items() if key != "name"})
    ),
)
LAYER: Schema = {
    "name": TEXT,
    "type": TEXT,
    "inputs": TEXTS,
    "outputs": TEXTS,
    "parameters": OBJECT,
    "shapes": list_of(SIZES, "a list of lists of positive whole numbers"),
    "weights": mapping_of(SIZES, "an object of lists of positive whole numbers"),
    "frozen": optional(FLAG),
    "initial": optional(TEXT),
}
OBJECTIVE: Schema = {
    "kind": Kind(f"one of {', '.join(KINDS)}", lambda value: value in KINDS),
    "scores": or_none(TEXT),
    "normalization": Kind(f"one of {', '.join(NORMALIZATIONS)}", lambda value: value in NORMALIZATIONS),
    "ignore": list_of(WHOLE, "a list of whole numbers"),
    "weight": NUMBER,
    "label_scale": NUMBER,
    "matrix": or_none(list_of(NUMBERS, "a list of lists of numbers")),
}
CONTENT: Schema = {
    "multiseg": TEXT,
    "network.source": TEXT,
    "network.kind": TEXT,
    "network.input": TEXT,
    "network.input_shape": SHAPE,
    "network.outputs": TEXTS,
    "network.loss": or_none(TEXT),
    "network.loss_labels": or_none(LABELS),
    "network.cross_entropy": FLAG,
    "network.objective": or_none(
        Kind("a cross entropy", lambda value: problem(value, OBJECTIVE) is None and set(value) == set(OBJECTIVE))
    ),
    "network.layers": list_of(
        Kind("a layer", lambda value: problem(value, LAYER) is None and bool(value["outputs"])), "a list of layers"
    ),
    "classes": FLAG,
    "trained": TEXTS,
    "terms": mapping_of(COUNT, "an object of whole numbers"),
    "left_out": or_none(TEXT),
    "settings.solver": SOLVER,
    "settings.learning_rate": NUMBER,
    "settings.steps": COUNT,
    "settings.batch_size": POSITIVE,
    "settings.seed": WHOLE,
    "settings.loss": or_none(LOSS),
    "settings.loss_options": mapping_of(NUMBER, "an object of numbers"),
    "settings.class_weights": NUMBERS,
    "settings.ignore_index": or_none(WHOLE),
    "settings.labels": LABELS,
    "settings.label_shape": SHAPE,
    "settings.subtract_mean": TEXT,
    "settings.divide_std": or_none(Kind("numbers or a text", lambda value: TEXT.valid(value) or NUMBERS.valid(value))),
}


def to_json(golden: Golden, terms: Mapping[str, int], version: str) -> dict[str, Any]:
    """Return the JSON content of a golden file; ``terms`` are those of its arrays, by name."""
    return {
        "multiseg": version,
        "network": golden.topology.to_json(),
        "classes": golden.classes,
        "settings": dict(golden.settings),
        "trained": list(golden.trained),
        "left_out": golden.values.left_out,
        "terms": dict(terms),
    }


def golden(path: Path, content: Any, arrays: Mapping[str, Array]) -> Golden:
    """Return what content and arrays say. Raises ModelError naming ``path`` if they are not those of a golden file.

    Each layer's output must be there, so a network needs no more memory than its file has bytes.
    """
    reason = problem(content, CONTENT)
    if reason is not None:
        raise ModelError(f"{path}: is damaged: {reason}")
    topology = _topology(path, content["network"])
    settings = content["settings"]
    reader = _Arrays(path, arrays, content["terms"])
    size = settings["batch_size"]
    batches = reader.array("batches", (max(settings["steps"], 1), size), np.int64)
    features, labels = (
        reader.images(name, shape)
        for name, shape in (("features", topology.input_shape), ("labels", tuple(settings["label_shape"])))
    )
    if len(labels) != len(features) or not ((batches >= 0) & (batches < len(features))).all():
        raise ModelError(f"{path}: is damaged: its batches are not of its images")
    weights = {name: reader.array(f"weights/{name}", shape) for name, shape in topology.weights.items()}
    trained = tuple(name for name in content["trained"] if name in weights)
    layers = {
        name: reader.bounded(f"layers/{name}", (size, *shape))
        for layer in topology.layers
        for name, shape in zip(layer.outputs, layer.shapes, strict=True)
    }
    kept = [name for name in topology.weights if f"gradients/{name}" in arrays]
    values = ReferenceValues(
        layers,
        [reader.bounded(f"loss/{place}", ()) for place in range(2) if f"loss/{place}" in arrays],
        {name: reader.bounded(f"gradients/{name}", topology.weights[name]) for name in kept},
        {
            name: reader.array(f"after/{name}", shape, np.float64)
            for name, shape in topology.weights.items()
            if f"after/{name}" in arrays
        },
        content["left_out"],
    )
    return Golden(
        path, topology, content["classes"], settings, weights, trained, features, labels, batches,
        reader.preprocessing("mean", topology.input_shape), reader.preprocessing("std", topology.input_shape[:1]),
        values, content["multiseg"],
    )  # fmt: skip


class _Arrays:
    """The arrays of a file, each checked when it is taken."""

    def __init__(self, path: Path, arrays: Mapping[str, Array], terms: Mapping[str, int]) -> None:
        self.path, self.arrays, self.terms = path, arrays, terms

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        array = self.arrays.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            what = "is missing" if array is None else f"is {array.dtype} of the shape {array.shape}"
            raise ModelError(
                f"{self.path}: is damaged: its array {name!r} {what}, not {np.dtype(dtype)} of the shape {shape}"
            )
        return array

    def bounded(self, name: str, shape: tuple[int, ...]) -> Bounded:
        value = self.array(name, shape, np.float64)
        exact = f"bounds/{name}" not in self.arrays
        bound = 0.0 if exact else self.array(f"bounds/{name}", shape).astype(np.float64)
        return Bounded(value, bound, self.terms.get(name, 0))

    def images(self, name: str, shape: tuple[int, ...]) -> Array:
        array = self.arrays.get(name)
        count = 0 if array is None or not array.ndim else len(array)
        return self.array(name, (count, *shape), np.uint8 if array is None else array.dtype)

    def preprocessing(self, name: str, shape: tuple[int, ...]) -> Array | None:
        """Return a mean or deviation: one number for each channel, or an image; None without it."""
        array = self.arrays.get(name)
        if array is None:
            return None
        # a mean image may have another size than the crops of images
        as_image = len(shape) == 3 and array.ndim == 3 and array.shape[0] == shape[0]
        return self.array(name, array.shape if as_image else shape[:1])


def _topology(path: Path, description: Mapping[str, Any]) -> Topology:
    """Return the described network. Raises ModelError if it is none, or if this version infers other shapes."""
    try:
        topology = Topology.of(description["source"], description["kind"], description)
        shapes = topology.shapes
        missing = [name for name in topology.outputs if name not in shapes]
    except ModelError as error:
        raise ModelError(
            f"{path}: is damaged, or this version of multiseg reads layers differently: {error}"
        ) from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        # the rules of layers take their parameters as a reader makes them
        raise ModelError(f"{path}: is damaged: its network cannot be read: {type(error).__name__}: {error}") from error
    if missing or not topology.outputs:
        raise ModelError(f"{path}: is damaged: its network has no output")
    for layer, stored in zip(topology.layers, description["layers"], strict=True):
        inferred = [
            [list(shape) for shape in layer.shapes],
            {part: list(shape) for part, shape in layer.weights.items()},
        ]
        if inferred != [stored["shapes"], stored["weights"]]:
            raise ModelError(
                f"{path}: layer {layer.name!r} ({layer.type}) has the shapes {stored['shapes']} in the file, and "
                f"{inferred[0]} in this version of multiseg, which reads the layer differently"
            )
    if topology.more_inputs or topology.untied:
        raise ModelError(
            f"{path}: is damaged: its network has several inputs, or layers that share weights in several layouts"
        )
    return topology
