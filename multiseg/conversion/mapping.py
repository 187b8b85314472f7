"""Which parameter of a network is which of another: as it is said, by name, by structure, or by shape."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from multiseg.errors import ModelError, SettingsError
from multiseg.topology import Shape, Topology
from multiseg.topology.matching import match

How = Literal["name", "structure", "shape", "map"]
LISTED = 8


@dataclass(frozen=True)
class Side:
    """Parameters of one side, in order; ``title`` names it in messages, ``topology`` is its network where that is known.

    ``exported``: the network was written from the other side's, with its names as far as they can be spelt.
    """

    title: str
    shapes: Mapping[str, Shape]
    topology: Topology | None = None
    exported: bool = False


@dataclass(frozen=True)
class Mapped:
    """``names`` of the source's parameters by the target's, in the target's order, and by what they were found."""

    names: dict[str, str]
    how: How


def mapped(source: Side, target: Side | None, given: Mapping[str, str]) -> Mapped:
    """Find every parameter of ``target`` that leads to an output in ``source``; without a target they keep their names.

    ``given`` are layers by layers, or parameters by parameters, of the target by those of the source, and come first. The rest
    goes by structure where both networks are known, or by what exporting made of the names where it says the network otherwise;
    else by name, where each has its own with its shape; else by shape, where there is one of each.

    Raises SettingsError for names in ``given`` that are unknown, and ModelError where the networks differ (with their first
    difference), a parameter is missing or of another shape, or several could be meant (with the candidates).
    """
    said = _said(source, target, given)
    if target is None:
        kept = {name: name for name in source.shapes if name not in said.values()}
        double = next((name for name in kept if name in said), None)
        if double is not None:
            raise SettingsError(f"map: {said[double]!r} cannot become {double!r}, which {source.title} has already")
        back = {name: new for new, name in (said | kept).items()}
        return Mapped({back[name]: name for name in source.shapes}, "map" if given else "name")
    left = {name: shape for name, shape in target.shapes.items() if name not in said}
    free = {name: shape for name, shape in source.shapes.items() if name not in said.values()}
    found: dict[str, str] = {}
    how: How = "map"
    if not left:
        pass
    elif source.topology is not None and target.topology is not None:
        try:
            found, how = _by_structure(source, source.topology, target.topology, left, free)
        except ModelError:  # a layer that a framework says in several words is described otherwise
            found, how = _by_spelling(left, free) if target.exported else {}, "name"
            if not found:
                raise
    elif all(free.get(name) == shape for name, shape in left.items()):
        found, how = {name: name for name in left}, "name"
    else:
        found, how = _by_shape(source, target, left, free), "shape"
    names = said | found
    return Mapped({name: names[name] for name in target.shapes if name in names}, how)


def _by_structure(
    source: Side, one: Topology, other: Topology, left: Mapping[str, Shape], free: Mapping[str, Shape]
) -> tuple[dict[str, str], How]:
    try:
        found = match(_predicting(one), _predicting(other)).parameters
    except ModelError as error:
        raise ModelError(
            f"{error}; if these weights are meant for it all the same, {MEND}, for every layer, or name no network of the "
            "weights file, which then goes by names and shapes"
        ) from error
    names = {}
    for name in left:
        if name not in found:  # leads to no output
            continue
        if found[name] not in free:
            raise ModelError(f"{source.title}: has no {found[name]!r}, which {one.source} needs for {name!r}; {MEND}")
        names[name] = found[name]
    return names, "name" if all(name == own for name, own in names.items()) else "structure"


def _predicting(network: Topology) -> Topology:
    """The network without its dropout, which does nothing when it predicts, and which files for prediction alone have not."""
    layers = [replace(each, type="Identity") if each.type == "Dropout" else each for each in network.layers]
    return replace(network, layers=tuple(layers))


def _by_spelling(left: Mapping[str, Shape], free: Mapping[str, Shape]) -> dict[str, str]:
    """What exporters make of names, and of a batch normalisation's in Caffe; nothing where it is not found of every one."""

    def spelt(name: str) -> tuple[str, str]:
        layer, _, part = name.rpartition(".")
        return re.sub(r"\W", "_", layer, flags=re.ASCII), part

    found: dict[str, str] = {}
    for name, shape in left.items():
        layer, part = spelt(name)
        like = [own for own in free if spelt(own) == (layer, part)]
        like = like or [own for own in free if spelt(own) == (layer.removesuffix("_scale"), part)]
        if len(like) != 1 or free[like[0]] != shape or like[0] in found.values():
            return {}
        found[name] = like[0]
    return found


MEND = "say which is which, as in map={'OLD': 'NEW'}"


def _by_shape(source: Side, target: Side, left: Mapping[str, Shape], free: Mapping[str, Shape]) -> dict[str, str]:
    """Layers whose weights have the same shapes as one other layer's, then parameters that have the shape of one other."""
    found: dict[str, str] = {}
    ours, theirs = _layers(free), _layers(left)
    for layer, own in _pairs({k: _key(v) for k, v in ours.items()}, {k: _key(v) for k, v in theirs.items()}).items():
        found |= {_name(layer, part): _name(own, part) for part in theirs[layer]}
    rest = {name: shape for name, shape in left.items() if name not in found}
    unused = {name: shape for name, shape in free.items() if name not in found.values()}
    found |= _pairs(unused, rest)
    rest = {name: shape for name, shape in rest.items() if name not in found}
    if not rest:
        return found
    name, shape = next(iter(rest.items()))
    unused = {own: size for own, size in unused.items() if own not in found.values()}
    alike = [own for own, size in unused.items() if size == shape]
    known = (
        "name the network file that the weights are of (source_network=FILE), or " if source.topology is None else ""
    )
    if alike:
        raise ModelError(
            f"{source.title}: which of its weights are {name!r} {shape} of {target.title} cannot be told: it may be "
            f"{_listed(alike)}; {known}{MEND}"
        )
    if name in unused:
        raise ModelError(
            f"{source.title}: {name!r} is {source.shapes[name]}, in {target.title} it is {shape}: they are not the same network"
        )
    raise ModelError(
        f"{source.title}: has no weights of the shape {shape} for {name!r} of {target.title}; left are "
        f"{_listed([f'{own} {size}' for own, size in unused.items()]) or 'none'}"
    )


def _layers(shapes: Mapping[str, Shape]) -> dict[str, dict[str, Shape]]:
    layers: dict[str, dict[str, Shape]] = defaultdict(dict)
    for name, shape in shapes.items():
        layer, _, part = name.rpartition(".")
        layers[layer][part] = shape
    return layers


def _name(layer: str, part: str) -> str:
    return f"{layer}.{part}" if layer else part


def _key(parts: Mapping[str, Shape]) -> Hashable:
    return tuple(sorted(parts.items()))


def _pairs(ours: Mapping[str, Hashable], theirs: Mapping[str, Hashable]) -> dict[str, str]:
    """Our names by theirs, for what is once on each side."""
    counts, others = Counter(ours.values()), Counter(theirs.values())
    place = {value: name for name, value in ours.items()}
    return {name: place[value] for name, value in theirs.items() if counts[value] == others[value] == 1}


def _said(source: Side, target: Side | None, given: Mapping[str, str]) -> dict[str, str]:
    """Parameters by parameters as ``given`` says them."""
    found: dict[str, str] = {}
    for old, new in given.items():
        for own, name in _said_pairs(old, new, source, target):
            if name in found:
                raise SettingsError(f"map: {name!r} is given twice, as {found[name]!r} and as {own!r}")
            if own in found.values():
                raise SettingsError(f"map: {own!r} is used twice, {new!r} being one of its places")
            if target is not None and source.shapes[own] != target.shapes[name]:
                raise ModelError(
                    f"map {old!r}: {new!r}: {own!r} is {source.shapes[own]} in {source.title}, {name!r} is "
                    f"{target.shapes[name]} in {target.title}"
                )
            found[name] = own
    return found


def _said_pairs(old: str, new: str, source: Side, target: Side | None) -> list[tuple[str, str]]:
    layers = _layers(source.shapes)
    if old in source.shapes:
        if target is not None and new not in target.shapes:
            raise SettingsError(
                f"map {old!r}: {new!r}: {target.title} has no parameter {new!r}{_near(new, target.shapes)}"
            )
        return [(old, new)]
    if old not in layers:
        raise SettingsError(
            f"map {old!r}: {source.title} has no layer or parameter {old!r}{_near(old, [*layers, *source.shapes])}"
        )
    if target is None:
        return [(f"{old}.{part}", f"{new}.{part}") for part in layers[old]]
    theirs = _layers(target.shapes)
    if new not in theirs:
        raise SettingsError(f"map {old!r}: {new!r}: {target.title} has no layer {new!r}{_near(new, theirs)}")
    both = [part for part in layers[old] if part in theirs[new]]
    if not both:
        raise SettingsError(
            f"map {old!r}: {new!r}: their weights are called otherwise, {_listed(layers[old])} and {_listed(theirs[new])}; map "
            "them one by one"
        )
    return [(f"{old}.{part}", f"{new}.{part}") for part in both]


def _near(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: those most like it, or the first of them all."""
    names = list(known)
    like = difflib.get_close_matches(name, names, 3, 0.6)
    return f"; near it are: {', '.join(like)}" if like else f"; it has: {_listed(names)}"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:LISTED]) + (f" and {len(every) - LISTED} more" if len(every) > LISTED else "")
