"""Recognise Swish that is written as arithmetic: x * sigmoid(alpha * x)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

Layer = dict[str, Any]


def folded(layers: list[Layer], outputs: Collection[str]) -> list[Layer]:
    """Return the layers with one Swish for each such product whose gate is used nowhere else; ``outputs`` are the network's."""
    producers = {layer["outputs"][0]: layer for layer in layers}
    uses = Counter(value for layer in layers for value in layer["inputs"])
    uses.update(outputs)
    removed: list[Layer] = []
    for layer in layers:
        if layer["type"] != "Mul" or len(layer["inputs"]) != 2:
            continue
        for gate, x in (layer["inputs"], layer["inputs"][::-1]):
            found = _gate(producers, uses, gate, x)
            if found is not None:
                alpha, inner = found
                layer.update(type="Swish", parameters={"alpha": alpha}, inputs=[x])
                removed += inner
                break
    return [layer for layer in layers if all(layer is not other for other in removed)]


def _gate(producers: dict[str, Layer], uses: Counter[str], gate: str, x: str) -> tuple[float, list[Layer]] | None:
    """Return alpha and the layers of sigmoid(alpha * x); None if ``gate`` is anything else, or is used elsewhere."""
    sigmoid = producers.get(gate)
    if sigmoid is None or sigmoid["type"] != "Sigmoid" or uses[gate] != 1:
        return None
    argument = sigmoid["inputs"][0]
    if argument == x:
        return 1.0, [sigmoid]
    scale = producers.get(argument)
    if scale is None or scale["type"] != "Mul" or scale["inputs"] != [x] or uses[argument] != 1:
        return None
    return float(scale["parameters"]["value"]), [scale, sigmoid]
