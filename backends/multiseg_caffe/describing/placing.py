"""A network's layers one after the other, with their shapes; and what Caffe would end the process for.

Caffe checks a network by aborting. These are its checks (src/caffe/net.cpp), as errors that name the layer.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from multiseg.errors import ModelError
from multiseg_caffe.describing.axes import Shape, listed
from multiseg_caffe.describing.shapes import COUNTS, IN_PLACE, MANY, READERS, RULES, UNRULED
from multiseg_caffe.describing.windows import WrongLayer

LARGEST = 1 << 31  # Blob::Reshape counts in an int
FILLERS = ("constant", "gaussian", "positive_unitball", "uniform", "xavier", "msra", "bilinear")


@dataclass(frozen=True)
class Placed:
    """A layer with its blobs' shapes; None where only Caffe can tell."""

    layer: Any
    bottoms: tuple[Shape | None, ...]
    tops: tuple[Shape | None, ...]
    weights: tuple[Shape, ...]


def infer(net: Any, path: str, shapes: Mapping[str, Shape], also: Iterable[str] = ()) -> list[Placed]:
    """The layers of ``net`` with their shapes, where the blobs in ``shapes`` are given.

    ``also`` are further types that this Caffe has. Raises ModelError naming the layer and what is wrong with it.
    """
    known: dict[str, Shape | None] = dict(shapes)
    makers: dict[str, str] = {}
    readers: dict[str, str] = {}
    names: dict[str, bool] = {}  # of layers, and whether they have weights
    shared: dict[str, tuple[str, Shape]] = {}
    placed = []
    for layer in net.layer:
        try:
            here = _place(layer, known, makers, also)
            _own(layer, readers)
            if layer.name in names and (here.weights or names[layer.name]):
                raise WrongLayer("is not the only layer of this name, and weights are found by it; rename one of them")
            _share(layer, here.weights, shared)
        except WrongLayer as error:
            raise ModelError(f"{path}: layer {layer.name!r} ({layer.type or 'no type'}): {error}") from error
        names[layer.name] = bool(here.weights)
        for top, shape in zip(layer.top, here.tops):  # noqa: B905 - worker code runs on Python 3.9
            known[top] = shape
            makers[top] = layer.name
            readers.pop(top, None)
        placed.append(here)
    return placed


def _place(layer: Any, known: Mapping[str, Shape | None], makers: Mapping[str, str], also: Iterable[str]) -> Placed:
    if layer.type not in RULES and layer.type not in UNRULED and layer.type not in also:
        types = sorted({*RULES, *UNRULED, *also})
        raise WrongLayer(f"BVLC Caffe has no layer of this type{near(layer.type, types)}")
    if layer.type in READERS and layer.bottom:
        raise WrongLayer(f"reads a data set, so it cannot read {layer.bottom[0]!r}; leave bottom out")
    if layer.type == "Python" and not (layer.python_param.module and layer.python_param.layer):
        raise WrongLayer("needs python_param { module: ... layer: ... }")
    for bottom in layer.bottom:
        if bottom not in known:
            raise WrongLayer(f"reads {bottom!r}, which no layer before it makes{near(bottom, known)}")
    for top in layer.top:
        if top in layer.bottom:
            if layer.type not in IN_PLACE and layer.type in RULES:
                raise WrongLayer(f"writes its output over its input {top!r}, which this type cannot")
        elif top in known:
            maker = f"layer {makers[top]!r} makes" if top in makers else "the input is"
            raise WrongLayer(f"makes {top!r}, which {maker} already")
    _fillers(layer)
    found = tuple(known[bottom] for bottom in layer.bottom)
    bottoms = [shape for shape in found if shape is not None]
    rule = RULES.get(layer.type)
    if rule is None or len(bottoms) < len(found):
        return Placed(layer, found, (None,) * len(layer.top), ())
    _counted(layer)
    tops, weights = rule(layer, bottoms)
    if any(size < 1 for shape in tops for size in shape):
        raise WrongLayer(f"would make {tops[0]} of {listed(bottoms)}")
    for made, shapes in (("make", tops), ("have weights of", weights)):
        large = next((shape for shape in shapes if math.prod(shape) >= LARGEST), None)
        if large is not None:
            raise WrongLayer(f"would {made} {large}; Caffe's arrays have fewer than {LARGEST} elements")
    filler = _weight_filler(layer)
    if filler == "bilinear" and any(len(shape) != 4 or shape[2] != shape[3] for shape in weights[:1]):
        raise WrongLayer(
            f"has weight_filler {{ type: 'bilinear' }}, which is for square kernels; its weights are {weights[0]}"
        )
    if len(layer.param) > len(weights):
        raise WrongLayer(f"has {len(layer.param)} times param {{ }}, and {len(weights)} arrays of weights")
    if layer.loss_weight and len(layer.loss_weight) != max(len(layer.top), 1):
        raise WrongLayer(f"has {len(layer.loss_weight)} times loss_weight for {len(layer.top)} tops")
    return Placed(layer, found, tuple(tops[: len(layer.top)]), tuple(weights))


def near(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: those most like it, or the first of them all."""
    names = list(known)
    like = difflib.get_close_matches(name, names, 3, 0.6)
    if like:
        return f"; near it are: {', '.join(like)}"
    return f"; known are: {', '.join(names[:12])}{' and more' if len(names) > 12 else ''}" if names else ""


def _fillers(layer: Any) -> None:
    for field, parameters in layer.ListFields():
        if not field.name.endswith("_param"):
            continue
        for each, filler in parameters.ListFields():
            if each.message_type is None or each.message_type.name != "FillerParameter" or hasattr(filler, "append"):
                continue
            if filler.type not in FILLERS:
                raise WrongLayer(f"{each.name} {{ type: {filler.type!r} }} is unknown{near(filler.type, FILLERS)}")
            if filler.type == "gaussian" and filler.std <= 0:
                raise WrongLayer(f"{each.name} {{ std: {filler.std:g} }} is not above 0")
            if filler.type == "uniform" and filler.min > filler.max:
                raise WrongLayer(f"{each.name} {{ min: {filler.min:g} }} is above max, {filler.max:g}")


def _weight_filler(layer: Any) -> str:
    p = layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param
    return str(p.weight_filler.type)


def _own(layer: Any, readers: dict[str, str]) -> None:
    """An input that is written over has no other reader: Caffe gives each reader a copy, and would write to that."""
    for top in layer.top:
        if top in layer.bottom and (top in readers or list(layer.bottom).count(top) > 1):
            other = f"layer {readers[top]!r}" if top in readers else "itself once more"
            raise WrongLayer(
                f"writes its output over its input {top!r}, which is read by {other}; give it a top of its own"
            )
    readers.update(dict.fromkeys(layer.bottom, layer.name))


def _share(layer: Any, weights: tuple[Shape, ...], shared: dict[str, tuple[str, Shape]]) -> None:
    for spec, shape in zip(layer.param, weights):  # noqa: B905
        if not spec.name:
            continue
        owner, theirs = shared.setdefault(spec.name, (layer.name, shape))
        if theirs != shape and (spec.share_mode == 0 or math.prod(theirs) != math.prod(shape)):
            raise WrongLayer(
                f"shares the weights {spec.name!r} of layer {owner!r}, which are {theirs}, its own {shape}"
            )


def shared(placed: Iterable[Placed]) -> list[list[str]]:
    """Names of the layers that have weights of one name, ``param { name: ... }``, where these are several."""
    users: dict[str, list[str]] = {}
    for here in placed:
        for spec in here.layer.param[: len(here.weights)]:
            if spec.name:
                users.setdefault(spec.name, []).append(here.layer.name)
    return [names for names in users.values() if len(names) > 1]


def _counted(layer: Any) -> None:
    """Numbers of bottoms and tops, as each layer's header declares them (include/caffe/layers/)."""
    least, most, tops_least, tops_most = COUNTS.get(layer.type, (1, 1, 1, 1))
    for what, count, low, high in (
        ("inputs (bottom)", len(layer.bottom), least, most),
        ("outputs (top)", len(layer.top), tops_least, tops_most),
    ):
        if not low <= count <= high:
            needs = f"{low}" if low == high else f"{low} to {high}" if high < MANY else f"{low} or more"
            raise WrongLayer(f"has {count} {what}, it needs {needs}")
