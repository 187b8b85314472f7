"""The matcher of parameters: which parameter of one network is which of another.

``convert``, ``weights=`` of a job and ``check_parity`` all match here; where they differ is their policy.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from multiseg.conversion.explicit_map import explicit_pairs
from multiseg.conversion.parameters import ParameterSet, by_layer, listed, parameter_name
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.topology import Layer, Shape, Topology
from multiseg.topology.matching import Match, match
from multiseg.topology.vocabulary import types

STOCHASTIC = types(lambda row: row.stochastic)
How = Literal["name", "structure", "shape", "map"]
T = TypeVar("T")
REMEDY = f"specify the pairs, as in {setting('map', {'OLD': 'NEW'})}"


@dataclass(frozen=True)
class Policy:
    """What a matching has to find, and in which order it looks.

    - ``complete``: the side whose parameters must all have a counterpart, else ModelError; None accepts what there is.
    - ``names_first``: if every parameter of the target has a namesake of the same shape, that settles it, and no network is
      described. Otherwise the structure of the two networks, where both are known, counts more than names.
    """

    complete: Literal["target", "source"] | None
    names_first: bool = False


ALL_OF_TARGET = Policy("target")  # convert: a weights file has to hold every parameter of its network
ALL_OF_SOURCE = Policy(
    "source"
)  # parity: the file computes with the reference's weights, further ones keep their values
WHAT_FITS = Policy(None, names_first=True)  # a job's weights=: layers without a counterpart keep their initial values


@dataclass(frozen=True)
class ParameterMatch:
    """Pairs of parameters of two networks.

    - ``names``: the source's parameters by the target's, in the target's order; ``how`` they were matched: by ``name``,
      ``structure``, ``shape``, or all by the explicit ``map``.
    - ``missing``: parameters of the target without a counterpart; ``unused``: parameters of the source that none needs.
    - ``reshaped``: parameters of the target whose counterpart has another shape.
    - ``values``: values that layers of the source compute by those of the target; empty unless matched by structure.
    """

    names: dict[str, str]
    how: How
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    values: dict[str, str] = field(default_factory=dict)

    @property
    def fitting(self) -> dict[str, str]:
        """``names`` without those of another shape."""
        return {target: source for target, source in self.names.items() if target not in self.reshaped}

    @property
    def renamed(self) -> dict[str, str]:
        """Those of ``fitting`` whose two names differ."""
        return {target: source for target, source in self.fitting.items() if target != source}

    def take(self, values: Mapping[str, T]) -> dict[str, T]:
        """Return ``values`` of the source's parameters by the target's names."""
        return {target: values[source] for target, source in self.names.items()}


def match_parameters(
    source: ParameterSet,
    target: ParameterSet | None,
    policy: Policy = ALL_OF_TARGET,
    layer_map: Mapping[str, str] | None = None,
) -> ParameterMatch:
    """Find the parameter of ``source`` that is each of ``target``'s; without a target they keep their names.

    ``layer_map`` comes first: layers by layers, or parameters by parameters, of the target by those of the source. The rest is
    matched by structure if both networks are known, or by the names that an exporter gives if it writes the network with other
    layers; else by name if each has a namesake of its shape; else by shape if exactly one fits. Dropout does not count. With a
    policy that accepts what fits, networks that differ are matched by name.

    Raises SettingsError for unknown names in ``layer_map``. With a complete policy raises ModelError if the networks differ (with
    the first difference), a parameter is missing or of another shape, or several parameters could be meant (with the candidates).
    """
    explicit = explicit_pairs(source, target, layer_map or {})
    if target is None:
        return _keep_names(source, explicit)
    wanted = {name: shape for name, shape in target.shapes.items() if name not in explicit}
    available = {name: shape for name, shape in source.shapes.items() if name not in explicit.values()}
    found: dict[str, str] = {}
    how: How = "map"
    values: dict[str, str] = {}
    if wanted or not explicit:
        found, how, values = _search(source, target, wanted, available, policy)
    pairs = explicit | found
    names = {name: pairs[name] for name in target.shapes if name in pairs}
    used = set(names.values())
    return ParameterMatch(
        names=names,
        how=how,
        missing=tuple(name for name in target.shapes if name not in names),
        unused=tuple(name for name in source.shapes if name not in used),
        reshaped=tuple(name for name, own in names.items() if source.shapes[own] != target.shapes[name]),
        values=values,
    )


def _keep_names(source: ParameterSet, explicit: Mapping[str, str]) -> ParameterMatch:
    kept = {name: name for name in source.shapes if name not in explicit.values()}
    taken = next((name for name in kept if name in explicit), None)
    if taken is not None:
        raise SettingsError(
            f"{setting('map')}: {explicit[taken]!r} cannot become {taken!r}, which {source.title} has already"
        )
    new_names = {old: new for new, old in {**explicit, **kept}.items()}
    return ParameterMatch({new_names[name]: name for name in source.shapes}, "map" if explicit else "name")


Found = tuple[dict[str, str], How, dict[str, str]]


def _search(
    source: ParameterSet,
    target: ParameterSet,
    wanted: Mapping[str, Shape],
    available: Mapping[str, Shape],
    policy: Policy,
) -> Found:
    """Match what the explicit map leaves open. Returns names, how they were matched, and values of layers."""
    same_names = {name: name for name in wanted if name in available}
    all_named = all(available.get(name) == shape for name, shape in wanted.items())
    if all_named and policy.names_first:
        return same_names, "name", {}
    try:
        if source.topology is not None and target.topology is not None:
            return _by_structure(source, target, source.topology, target.topology, wanted, available, policy)
    except ModelError:
        if policy.complete is not None:
            raise
    if all_named or policy.complete is None:
        return same_names, "name", {}
    return _by_shape(source, target, wanted, available), "shape", {}


def _by_structure(
    source: ParameterSet, target: ParameterSet, source_network: Topology, target_network: Topology,
    wanted: Mapping[str, Shape], available: Mapping[str, Shape], policy: Policy,
) -> Found:  # fmt: skip
    try:
        counterparts = _match_networks(source_network, target_network)
    except ModelError as error:
        if target.exported:  # a layer that the format writes as several ones is described differently
            names = _by_exported_name(wanted, available, policy)
            if names is not None:
                return names, "name", {}
        if policy.complete == "source":
            raise ModelError(f"{target.title}: cannot tell which of its parameters is which: {error}") from error
        raise ModelError(
            f"{error.template}; if these weights are meant for it all the same, "
            f"{REMEDY}, for every layer, or leave the network of the "
            "weights file out, which is then matched by names and shapes"
        ) from error
    names = {}
    for name in wanted:
        own = counterparts.parameters.get(name)
        if own is None:  # no output depends on it
            continue
        if own not in available and policy.complete is not None:
            raise ModelError(
                f"{source.title}: has no {own!r}, which {source_network.source} needs for {name!r}; {REMEDY}"
            )
        if own in available:
            names[name] = own
    if policy.complete is None:  # only names can tell what no output depends on
        used = set(names.values())
        names |= {name: name for name in wanted if name not in names and name in available and name not in used}
    how: How = "name" if all(name == own for name, own in names.items()) else "structure"
    return names, how, counterparts.values


def _match_networks(source: Topology, target: Topology) -> Match:
    """Match two topologies, if necessary without what they do in training only: files for prediction may lack it."""
    try:
        return match(source, target)
    except ModelError:
        return match(_for_prediction(source), _for_prediction(target))


def _for_prediction(network: Topology) -> Topology:
    """Return a network without its dropout and without the statistics that it uses in training."""

    def changed(layer: Layer) -> Layer:
        if layer.type in STOCHASTIC:
            return replace(layer, type="Identity")
        if "training_statistics" in layer.parameters:
            rest = {key: value for key, value in layer.parameters.items() if key != "training_statistics"}
            return replace(layer, parameters=rest)
        return layer

    return replace(network, layers=tuple(map(changed, network.layers)))


def _by_exported_name(
    wanted: Mapping[str, Shape], available: Mapping[str, Shape], policy: Policy
) -> dict[str, str] | None:
    """Match the names that exporters write; None unless every parameter of the side that has to be complete is found.

    They replace what a name must not hold by an underscore, and write the factors of a batch normalisation as a Scale layer of
    Caffe's. A policy for all of the source accepts equal sizes, the arrays being reshaped.
    """

    def spelling(name: str) -> tuple[str, str]:
        layer, _, part = name.rpartition(".")
        return re.sub(r"\W", "_", layer, flags=re.ASCII), part

    sources: dict[tuple[str, str], list[str]] = {}
    for name in available:
        sources.setdefault(spelling(name), []).append(name)
    names: dict[str, str] = {}
    for name, shape in wanted.items():
        layer, part = spelling(name)
        candidates = sources.get((layer, part)) or sources.get((layer.removesuffix("_scale"), part)) or []
        own = candidates[0] if len(candidates) == 1 else None
        if own is not None and own not in names.values() and _fits(available[own], shape, policy):
            names[name] = own
        elif policy.complete == "target":
            return None
    return names if policy.complete == "target" or set(names.values()) == set(available) else None


def _fits(shape: Shape, other: Shape, policy: Policy) -> bool:
    return math.prod(shape) == math.prod(other) if policy.complete == "source" else shape == other


def _by_shape(
    source: ParameterSet, target: ParameterSet, wanted: Mapping[str, Shape], available: Mapping[str, Shape]
) -> dict[str, str]:
    """Match layers whose parameters have the shapes of exactly one other layer's, then parameters in the same way."""
    source_layers, target_layers = by_layer(available), by_layer(wanted)
    names: dict[str, str] = {}
    for layer, own in _unique_pairs(_keys(source_layers), _keys(target_layers)).items():
        names |= {parameter_name(layer, part): parameter_name(own, part) for part in target_layers[layer]}
    rest, free = _without(wanted, names), _without(available, names.values())
    names |= _unique_pairs(free, rest)
    rest, free = _without(rest, names), _without(free, names.values())
    if not rest:
        return names
    name, shape = next(iter(rest.items()))
    candidates = [own for own, size in free.items() if size == shape]
    if candidates:
        file = setting("source_network", example="FILE")
        network = f"specify the network file of the weights ({file}), or " if not source.topology else ""
        raise ModelError(
            f"{source.title}: cannot tell which of its parameters is {name!r} {shape} of {target.title}: candidates are "
            f"{listed(candidates)}; {network}{REMEDY}"
        )
    if name in free:
        raise ModelError(
            f"{source.title}: {name!r} has the shape {source.shapes[name]}, in {target.title} it has {shape}: they are not the "
            "same network"
        )
    raise ModelError(
        f"{source.title}: has no parameter of the shape {shape} for {name!r} of {target.title}; left are "
        f"{listed(f'{own} {size}' for own, size in free.items()) or 'none'}"
    )


def _keys(layers: Mapping[str, Mapping[str, Shape]]) -> dict[str, Hashable]:
    return {layer: tuple(sorted(parts.items())) for layer, parts in layers.items()}


def _without(shapes: Mapping[str, Shape], names: Collection[str]) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if name not in names}


def _unique_pairs(source: Mapping[str, Hashable], target: Mapping[str, Hashable]) -> dict[str, str]:
    """The source's names by the target's, for values that occur once on each side."""
    source_counts, target_counts = Counter(source.values()), Counter(target.values())
    place = {value: name for name, value in source.items()}
    return {name: place[value] for name, value in target.items() if source_counts[value] == target_counts[value] == 1}
