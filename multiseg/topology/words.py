"""Format parameters and shapes of layers as text, by the tables of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multiseg.topology.layer import Layer, Shape
from multiseg.topology.vocabulary import PARAMETERS, VOCABULARY, Parameter

FIRST = ("strides", "pads")  # listed first, after the outputs and the kernel


def size(shape: Shape) -> str:
    """Return a shape as in 3x32x32."""
    return "x".join(map(str, shape))


def quantity(number: int) -> str:
    """Return a count with a unit, as in 8.65 M."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)


def name(key: str, type: str) -> str:
    """Return the name in messages of a parameter of a layer of this type."""
    own = VOCABULARY[type].words if type in VOCABULARY else {}
    return own.get(key) or _parameter(key).word or key.replace("_", " ")


def value(key: str, given: Any) -> str:
    """Return the value of a parameter as text."""
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, float):
        return f"{given:g}"
    if isinstance(given, Mapping):
        return ", ".join(f"{part} {value('', each)}" for part, each in given.items())
    if not isinstance(given, (list, tuple)):
        return str(given)
    shown_as = _parameter(key).shown_as
    if shown_as == "size":
        return size(tuple(given))
    if shown_as == "pads":
        return _pads(tuple(given))
    if shown_as == "pair":
        return str(given[0]) if len(set(given)) == 1 else size(tuple(given))
    return ", ".join(value(key, each) if not isinstance(each, (list, tuple)) else _span(each) for each in given)


def parameters(layer: Layer) -> str:
    """Return the parameters of a layer, as in "32 filters 3x3, stride 2, pad 1"; empty if all have hidden defaults."""
    remaining = dict(layer.parameters)
    words: list[str] = []
    if "num_output" in remaining:
        count = remaining.pop("num_output")
        words.append(f"{count} {name('num_output', layer.type)[: -1 if count == 1 else None]}")
    if "kernel_shape" in remaining:
        kernel = value("kernel_shape", remaining.pop("kernel_shape"))
        words[:] = [f"{words[0]} {kernel}"] if words else [kernel]
    if remaining.pop("auto_pad", None):
        remaining["pads"] = "SAME"
    order = [key for key in FIRST if key in remaining] + [key for key in remaining if key not in FIRST]
    for key in order:
        if remaining[key] is None or _is_hidden(key, remaining[key], layer.type):
            continue
        word = name(key, layer.type)
        if isinstance(remaining[key], bool):
            words.append(word if remaining[key] else f"no {word}")
        else:
            words.append(f"{word} {value(key, remaining[key])}")
    words += [f"{layer.initial} weights"] if layer.initial else []
    words += ["not trained"] if layer.frozen else []
    return ", ".join(words)


def listed(names: Sequence[str]) -> str:
    """Return names as in "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _parameter(key: str) -> Parameter:
    return PARAMETERS.get(key) or Parameter("of a type beyond the vocabulary")


def _is_hidden(key: str, given: Any, type: str) -> bool:
    """Return whether a value is the default of its type and defaults of this parameter are omitted."""
    row, plain = VOCABULARY.get(type), tuple(given) if isinstance(given, (list, tuple)) else given
    return row is not None and key in row.parameters and _parameter(key).hides_default and plain == row.parameters[key]


def _pads(pads: tuple[int, ...]) -> str:
    """Return one number if all pads are equal, as in 1; height x width if opposite sides are; else each side."""
    if len(set(pads)) == 1:
        return str(pads[0])
    top, left, bottom, right = pads
    if (top, left) == (bottom, right):
        return f"{top}x{left}"
    return f"(top {top}, left {left}, bottom {bottom}, right {right})"


def _span(pair: Sequence[Any]) -> str:
    return ":".join(map(str, pair)) if len(pair) == 2 else "/".join(map(str, pair))
