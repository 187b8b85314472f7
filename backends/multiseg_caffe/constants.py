"""Constants in a network, as layers of Caffe."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any


def diagonal(net: Any, weights: Sequence[float], name: str) -> str:
    """Append layers for a diagonal matrix; return its blob, ``name``."""
    rows = [[weight if row == column else 0.0 for column in range(len(weights))] for row, weight in enumerate(weights)]
    return constants(net, name, [value for row in rows for value in row])


def constants(net: Any, name: str, values: Sequence[float]) -> str:
    """Append layers for an array of constants, one DummyData top for each run of equal ones; return its blob."""
    runs = [(value, len(list(equal))) for value, equal in groupby(values)]
    tops = [f"{name}_{number}" for number in range(len(runs))]
    layer = net.layer.add(name=f"{name}_values", type="DummyData", top=tops)
    for value, count in runs:
        layer.dummy_data_param.shape.add(dim=[count])
        layer.dummy_data_param.data_filler.add(type="constant", value=value)
    net.layer.add(name=name, type="Concat", bottom=tops, top=[name]).concat_param.axis = 0
    return name
