"""The pairs of layers or parameters that a caller specifies with ``map=``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from multiseg.conversion.parameters import ParameterSet, listed, parameter_name
from multiseg.errors import ModelError, SettingsError, setting


def explicit_pairs(source: ParameterSet, target: ParameterSet | None, layer_map: Mapping[str, str]) -> dict[str, str]:
    """Return the source's parameter for each of the target's that ``layer_map`` specifies.

    ``layer_map`` has layers or parameters of the target by layers or parameters of the source. Without a target any new name is
    accepted. Raises SettingsError for unknown names and for parameters that occur twice, ModelError for shapes that differ.
    """
    pairs: dict[str, str] = {}
    for old, new in layer_map.items():
        for source_name, target_name in _expanded(old, new, source, target):
            if target_name in pairs:
                raise SettingsError(
                    f"{setting('map')}: {target_name!r} is specified twice, as {pairs[target_name]!r} and as {source_name!r}"
                )
            if source_name in pairs.values():
                raise SettingsError(f"{setting('map')}: {source_name!r} is used twice, once for {new!r}")
            if target is not None and source.shapes[source_name] != target.shapes[target_name]:
                raise ModelError(
                    f"{setting('map')} {old!r}: {new!r}: {source_name!r} has the shape "
                    f"{source.shapes[source_name]} in {source.title}, "
                    f"{target_name!r} has {target.shapes[target_name]} in {target.title}"
                )
            pairs[target_name] = source_name
    return pairs


def _expanded(old: str, new: str, source: ParameterSet, target: ParameterSet | None) -> list[tuple[str, str]]:
    """Pairs (source, target) of parameters that one entry of the map stands for."""
    if old in source.shapes:
        if target is not None and new not in target.shapes:
            raise SettingsError(
                f"{setting('map')} {old!r}: {new!r}: {target.title} has no parameter {new!r}{_suggestion(new, target.shapes)}"
            )
        return [(old, new)]
    if old not in source.layers:
        known = [*source.layers, *source.shapes]
        raise SettingsError(
            f"{setting('map')} {old!r}: {source.title} has no layer or parameter {old!r}{_suggestion(old, known)}"
        )
    parts = list(source.layers[old])
    if target is not None:
        if new not in target.layers:
            raise SettingsError(
                f"{setting('map')} {old!r}: {new!r}: {target.title} has no layer {new!r}{_suggestion(new, target.layers)}"
            )
        parts = [part for part in parts if part in target.layers[new]]
        if not parts:
            raise SettingsError(
                f"{setting('map')} {old!r}: {new!r}: the parameters of the two layers have different names, "
                f"{listed(source.layers[old])} and "
                f"{listed(target.layers[new])}; map them one by one"
            )
    return [(parameter_name(old, part), parameter_name(new, part)) for part in parts]


def _suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the names most similar to it, or the first known ones."""
    names = list(known)
    similar = difflib.get_close_matches(name, names, 3, 0.6)
    return f"; similar names: {', '.join(similar)}" if similar else f"; it has: {listed(names)}"
