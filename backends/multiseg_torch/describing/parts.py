"""Concatenations with constant parts, such as the zeros that ENet adds to its channels, as layers of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from multiseg_torch.describing import values


class Recorder(Protocol):
    """What is needed of the recorder of multiseg_torch.describing.tracing."""

    names: dict[int, str]

    def reference(self, tensor: Tensor) -> str | None: ...
    def derived(
        self, layer: str, kind: str, parameters: Any, read: Tensor, compute: Callable[[Tensor], Tensor]
    ) -> Tensor: ...


def computed(recorder: Recorder, layer: str, args: Any, kwargs: Mapping[str, Any], made: Tensor) -> Any:
    """Return the arguments of a concatenation with its constant parts computed from another part.

    A constant is that part times 0, as often as it fits and once cut to the rest, plus the constant's value: the same for any
    input that is finite.
    """
    parts = list(args[0]) if args and isinstance(args[0], (list, tuple)) else []
    source = next((each for each in parts if isinstance(each, Tensor) and id(each) in recorder.names), None)
    axis = int(args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))) % made.ndim
    if source is None or axis == 0:
        return args
    replaced: list[Any] = []
    for each in parts:
        value = values.uniform(each) if isinstance(each, Tensor) and recorder.reference(each) is None else None
        if value is None:
            replaced.append(each)
            continue
        count, rest = divmod(each.shape[axis], source.shape[axis])
        constant = recorder.derived(layer, "Mul", {"value": 0}, source, lambda x: x * 0)
        if value:
            constant = recorder.derived(layer, "Add", {"value": value}, constant, partial(torch.add, other=value))
        replaced += [constant] * count
        if rest:
            cut = {"axes": [axis], "starts": [0], "ends": [rest]}
            first = partial(torch.narrow, dim=axis, start=0, length=rest)
            replaced.append(recorder.derived(layer, "Slice", cut, constant, first))
    return [replaced, *args[1:]]
