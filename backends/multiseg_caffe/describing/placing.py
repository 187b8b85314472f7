"""Infer the shapes of a network layer by layer, with Caffe's checks.

If a check fails, Caffe aborts the process. These are the same checks (src/caffe/net.cpp), as errors that name the layer.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from multiseg.errors import ModelError, setting
from multiseg_caffe.describing.axes import Shape, listed
from multiseg_caffe.describing.shapes import COUNTS, IN_PLACE, MANY, READERS, RULES, UNRULED
from multiseg_caffe.describing.windows import WrongLayer
from multiseg_caffe.weights import is_statistic, is_transposed, part

LARGEST = 1 << 31  # Blob::Reshape counts elements in an int
FILLERS = ("constant", "gaussian", "positive_unitball", "uniform", "xavier", "msra", "bilinear")


@dataclass(frozen=True)
class Placed:
    """A layer with the shapes of its blobs; None for shapes that only Caffe can compute."""

    layer: Any
    bottoms: tuple[Shape | None, ...]
    tops: tuple[Shape | None, ...]
    weights: tuple[Shape, ...]


def infer(net: Any, path: str, shapes: Mapping[str, Shape], also: Iterable[str] = ()) -> list[Placed]:
    """Return the layers of ``net`` with their shapes; ``shapes`` are those of the input blobs.

    ``also`` are further types of layers that the installed Caffe has. Raises ModelError that names the layer and its error.
    """
    blobs: dict[str, Shape | None] = dict(shapes)
    producers: dict[str, str] = {}  # blob -> layer
    readers: dict[str, str] = {}  # blob -> layer
    has_weights: dict[str, bool] = {}  # by layer
    owners: dict[str, tuple[str, Shape]] = {}  # name of shared weights -> the first layer that has them, shape
    placed = []
    for layer in net.layer:
        try:
            inferred = _place(layer, blobs, producers, also)
            _check_in_place(layer, readers)
            if layer.name in has_weights and (inferred.weights or has_weights[layer.name]):
                raise WrongLayer("is not the only layer of this name, which identifies its weights; rename one of them")
            _check_shared(layer, inferred.weights, owners)
        except WrongLayer as error:
            raise ModelError(f"{path}: layer {layer.name!r} ({layer.type or 'no type'}): {error}") from error
        has_weights[layer.name] = bool(inferred.weights)
        for top, shape in zip(layer.top, inferred.tops):  # noqa: B905 - worker code runs on Python 3.9
            blobs[top] = shape
            producers[top] = layer.name
            readers.pop(top, None)
        placed.append(inferred)
    return placed


def _place(layer: Any, blobs: Mapping[str, Shape | None], producers: Mapping[str, str], also: Iterable[str]) -> Placed:
    """Return a layer with its shapes. ``blobs`` and ``producers`` are the shapes and layers of the blobs before it."""
    if layer.type not in RULES and layer.type not in UNRULED and layer.type not in also:
        types = sorted({*RULES, *UNRULED, *also})
        raise WrongLayer(
            f"BVLC Caffe has no layer of this type{near(layer.type, types)}; if it is not needed, cut the network before it, "
            f"with {setting('outputs', example='NAME')}"
        )
    if layer.type in READERS and layer.bottom:
        raise WrongLayer(f"reads a dataset, so it cannot read {layer.bottom[0]!r}; remove bottom")
    if layer.type == "Python" and not (layer.python_param.module and layer.python_param.layer):
        raise WrongLayer("needs python_param { module: ... layer: ... }")
    for bottom in layer.bottom:
        if bottom not in blobs:
            raise WrongLayer(f"reads {bottom!r}, which no previous layer outputs{near(bottom, blobs)}")
    for top in layer.top:
        if top in layer.bottom:
            if layer.type not in IN_PLACE and layer.type in RULES:
                raise WrongLayer(f"overwrites its input {top!r} (in-place), which this type does not support")
        elif top in blobs:
            owner = f"layer {producers[top]!r} outputs" if top in producers else "the input is"
            raise WrongLayer(f"outputs {top!r}, which {owner} already")
    _check_fillers(layer)
    all_bottoms = tuple(blobs[bottom] for bottom in layer.bottom)
    bottoms = [shape for shape in all_bottoms if shape is not None]
    rule = RULES.get(layer.type)
    if rule is None or len(bottoms) < len(all_bottoms):
        return Placed(layer, all_bottoms, (None,) * len(layer.top), ())
    _check_counts(layer)
    tops, weights = rule(layer, bottoms)
    if any(size < 1 for shape in tops for size in shape):
        raise WrongLayer(f"would output {tops[0]} for {listed(bottoms)}")
    for verb, shapes in (("output", tops), ("have weights of", weights)):
        large = next((shape for shape in shapes if math.prod(shape) >= LARGEST), None)
        if large is not None:
            raise WrongLayer(f"would {verb} {large}; Caffe's arrays have fewer than {LARGEST} elements")
    filler = _weight_filler(layer)
    if filler == "bilinear" and any(len(shape) != 4 or shape[2] != shape[3] for shape in weights[:1]):
        raise WrongLayer(
            f"has weight_filler {{ type: 'bilinear' }}, which is for square kernels; its weights are {weights[0]}"
        )
    if len(layer.param) > len(weights):
        raise WrongLayer(f"specifies param {{ }} {len(layer.param)} times for {len(weights)} arrays of weights")
    if layer.loss_weight and len(layer.loss_weight) != max(len(layer.top), 1):
        raise WrongLayer(f"specifies loss_weight {len(layer.loss_weight)} times for {len(layer.top)} tops")
    return Placed(layer, all_bottoms, tuple(tops[: len(layer.top)]), tuple(weights))


def near(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the most similar known names, or the first of all."""
    names = list(known)
    similar = difflib.get_close_matches(name, names, 3, 0.6)
    if similar:
        return f"; similar names: {', '.join(similar)}"
    return f"; known names: {', '.join(names[:12])}{' and more' if len(names) > 12 else ''}" if names else ""


def _check_fillers(layer: Any) -> None:
    """Raise WrongLayer for a filler of weights or biases that Caffe rejects (include/caffe/filler.hpp)."""
    for field, parameters in layer.ListFields():
        if not field.name.endswith("_param"):
            continue
        for key, filler in parameters.ListFields():
            if key.message_type is None or key.message_type.name != "FillerParameter" or hasattr(filler, "append"):
                continue
            if filler.type not in FILLERS:
                raise WrongLayer(f"{key.name} {{ type: {filler.type!r} }} is unknown{near(filler.type, FILLERS)}")
            if filler.type == "gaussian" and filler.std <= 0:
                raise WrongLayer(f"{key.name} {{ std: {filler.std:g} }} must be greater than 0")
            if filler.type == "uniform" and filler.min > filler.max:
                raise WrongLayer(f"{key.name} {{ min: {filler.min:g} }} must not be greater than max, {filler.max:g}")


def _weight_filler(layer: Any) -> str:
    p = layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param
    return str(p.weight_filler.type)


def _check_in_place(layer: Any, readers: dict[str, str]) -> None:
    """Raise WrongLayer if a layer overwrites an input that another layer reads. Add the layer's inputs to ``readers``.

    Caffe gives each reader of a blob a copy of its own, and the layer would overwrite its copy only.
    """
    for top in layer.top:
        if top in layer.bottom and (top in readers or list(layer.bottom).count(top) > 1):
            other = f"layer {readers[top]!r}" if top in readers else "itself a second time"
            raise WrongLayer(
                f"overwrites its input {top!r} (in-place), which is also read by {other}; give its top another name"
            )
    readers.update(dict.fromkeys(layer.bottom, layer.name))


def _check_shared(layer: Any, weights: tuple[Shape, ...], owners: dict[str, tuple[str, Shape]]) -> None:
    """Raise WrongLayer if shared weights (``param { name: ... }``) differ in shape from their owner's."""
    for spec, shape in zip(layer.param, weights):  # noqa: B905
        if not spec.name:
            continue
        owner, owner_shape = owners.setdefault(spec.name, (layer.name, shape))
        if owner_shape != shape and (spec.share_mode == 0 or math.prod(owner_shape) != math.prod(shape)):
            raise WrongLayer(
                f"shares the weights {spec.name!r} of layer {owner!r}, whose shape is {owner_shape}, but needs {shape}"
            )


def sharing(placed: Iterable[Placed]) -> dict[str, list[list[str]]]:
    """Return the layers that share weights, ``param { name: ... }``, one list of names per array, and the names of the arrays.

    Arrays that these layers read in different layouts have no common neutral array. Nor have statistics, which Caffe stores as
    sums.
    """
    users: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    layouts: dict[str, set[object]] = {}
    for item in placed:
        kind = item.layer.type
        for index, (spec, shape) in enumerate(zip(item.layer.param, item.weights)):  # noqa: B905
            if spec.name:
                name = part(kind, index)
                users.setdefault(spec.name, []).append(item.layer.name)
                names.setdefault(spec.name, []).append(f"{item.layer.name}.{name}")
                statistic = (kind, item.layer.name) if is_statistic(kind, index) else None
                layouts.setdefault(spec.name, set()).add((shape, is_transposed(item.layer, name), statistic))
    several = [key for key, layers in users.items() if len(layers) > 1]
    return {
        "shared": [users[key] for key in several],
        "tied": [names[key] for key in several if len(layouts[key]) == 1],
    }


def _check_counts(layer: Any) -> None:
    """Raise WrongLayer for a number of bottoms or tops that the layer's header does not allow (include/caffe/layers/)."""
    least, most, tops_least, tops_most = COUNTS.get(layer.type, (1, 1, 1, 1))
    for what, count, low, high in (
        ("inputs (bottom)", len(layer.bottom), least, most),
        ("outputs (top)", len(layer.top), tops_least, tops_most),
    ):
        if not low <= count <= high:
            needs = f"{low}" if low == high else f"{low} to {high}" if high < MANY else f"{low} or more"
            raise WrongLayer(f"has {count} {what}, it needs {needs}")
