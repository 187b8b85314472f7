"""Find the values of a plain graph's other placeholders by their use: keep probabilities, dropout rates, training phases."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow

from multiseg_tensorflow.tensors import Constants, constant, function_of, reachable

tf = tensorflow.compat.v1

INPUTS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
RANDOM = (
    "RandomUniform", "RandomStandardNormal", "TruncatedNormal", "StatelessRandomUniform", "StatelessRandomUniformV2",
    "StatelessRandomNormal", "StatelessRandomNormalV2", "StatelessTruncatedNormalV2", "Multinomial",
)  # fmt: skip
THRESHOLDS = ("GreaterEqual", "Greater", "Less", "LessEqual", "Floor")
AFTER = ("Cast", "LogicalNot", "Identity", "Sub")  # between a threshold and the product or selection
NORMALISATIONS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
NUMBERS = (0.0, 0.25, 0.5, 0.75, 1 - 2.0**-24)  # random numbers for which a mask is computed
MAX_SWITCHES = 4  # on which one mask may depend


@dataclass(frozen=True)
class Values:
    """The values of a placeholder in inference and in training."""

    inference: Any
    training: Any


@dataclass(frozen=True)
class Mask:
    """The mask that dropout multiplies by; ``function`` computes it from random numbers and the values of ``placeholders``.

    ``kept`` is its value for elements that are kept.
    """

    random: Any
    placeholders: tuple[Any, ...]
    function: Callable[[Sequence[Any]], Any]
    kept: bool

    def keeps_all(self, values: Mapping[str, Any]) -> bool:
        """Return whether all elements are kept for these values of the placeholders, or the mask is not computed."""
        source = self.random.outputs[0]
        shape = [size or 1 for size in source.shape.as_list()] if source.shape.rank is not None else [1]
        known = [values[op.name] for op in self.placeholders]
        try:
            computed = [self.function([np.full(shape, number, np.float32), *known]) for number in NUMBERS]
        except tf.errors.OpError:  # on a branch that is not executed
            return True
        return all(bool(np.all((mask != 0) == self.kept)) for mask in computed)


def is_scalar(op: Any) -> bool:
    """Return whether a placeholder may be fed one number or truth value."""
    tensor = op.outputs[0]
    known = tensor.dtype == tf.bool or tensor.dtype.is_floating or tensor.dtype.is_integer
    return known and (tensor.shape.rank is None or tensor.shape.num_elements() == 1)


def masks(graph: Any) -> list[Mask]:
    """Return the masks of dropout in a graph that depend on placeholders of one number and on nothing else."""
    found = []
    for op in graph.get_operations():
        tensor = _threshold(op) if op.type in RANDOM else None
        if tensor is None:
            continue
        before = _ancestors(tensor.op, op)
        placeholders = tuple(other for other in before if other.type in INPUTS)
        if 0 < len(placeholders) <= MAX_SWITCHES and all(map(is_scalar, placeholders)):
            mask, kept = _factor(tensor)
            function = function_of(mask, [op.outputs[0], *(other.outputs[0] for other in placeholders)])
            found.append(Mask(op, placeholders, function, kept))
    return found


def values_of(ops: Iterable[Any], outputs: Sequence[Any], dropouts: Iterable[Mask]) -> dict[str, Values | None]:
    """Return the values of placeholders by the name of their operation; None where their use does not tell them.

    ``ops`` are the placeholders besides the image's, ``outputs`` are the last operations of the network. A probability of dropout
    is that for which nothing is dropped, also in training. A placeholder that switches random numbers or the statistics of the
    batch on has the value without them in inference, and the other one in training.
    """
    dropouts = list(dropouts)
    scalars = [op for op in ops if is_scalar(op)]
    values: dict[str, Values | None] = dict.fromkeys((op.name for op in ops), None)
    for op in scalars:
        if op.outputs[0].dtype != tf.bool:
            kept = _probability(op, [mask for mask in dropouts if op in mask.placeholders])
            values[op.name] = None if kept is None else Values(kept, kept)
    known = {name: value.inference for name, value in values.items() if value is not None}
    used = reachable(outputs, _sources)
    for op in scalars:
        if values[op.name] is None:
            values[op.name] = _phase(op, outputs, dropouts, known)
        if op not in used:  # operations wait for it, but the output does not depend on its value
            values[op.name] = Values(*[_candidates(op)[0]] * 2)
        default = constant(op.inputs[0]) if op.type == "PlaceholderWithDefault" else None
        if values[op.name] is None and default is not None:
            values[op.name] = Values(default, default)
    return values


def _sources(op: Any) -> list[Any]:
    return [tensor.op for tensor in op.inputs]


def _ancestors(op: Any, end: Any) -> set[Any]:
    """Return the operations that ``op`` depends on, without those that only ``end`` depends on."""
    return reachable([op], lambda other: () if other is end else _sources(other))


def _threshold(op: Any) -> Any:
    """Return the tensor of 0 and 1, or false and true, that random numbers are compared to; None if there is none."""
    for _ in range(6):  # after scaling and shifting them to their interval
        users = op.outputs[0].consumers()
        if len(users) != 1:
            return None
        op = users[0]
        if op.type in THRESHOLDS:
            return op.outputs[0]
    return None


def _factor(tensor: Any) -> tuple[Any, bool]:
    """Return the mask after a threshold as it is multiplied or selected by, and its value for elements that are kept."""
    while True:
        users = [op for op in tensor.consumers() if op.type != "Shape"]
        if len(users) != 1:
            return tensor, True
        user = users[0]
        if user.type in ("Select", "SelectV2") and user.inputs[0] is tensor:
            chosen = constant(user.inputs[1])
            zeros = user.inputs[1].op.type == "ZerosLike" or (chosen is not None and not np.any(chosen))
            return tensor, not zeros
        if user.type not in AFTER or (user.type == "Sub" and all(constant(t) is None for t in user.inputs)):
            return tensor, True
        tensor = user.outputs[0]


def _candidates(op: Any) -> tuple[Any, Any]:
    dtype = op.outputs[0].dtype.as_numpy_dtype
    shape = op.outputs[0].shape.as_list() if op.outputs[0].shape.rank else []
    return np.full(shape, 0, dtype), np.full(shape, 1, dtype)


def _probability(op: Any, dropouts: list[Mask]) -> Any:
    """Return the value, 0 or 1, of a placeholder for which nothing is dropped and with the other something is; else None."""
    zero, one = _candidates(op)
    votes = set()
    for mask in dropouts:
        others = [other for other in mask.placeholders if other is not op]
        for combination in itertools.product(*map(_candidates, others)):
            feeds = {other.name: value for other, value in zip(others, combination)}  # noqa: B905 - Python 3.9
            keeps = [mask.keeps_all({**feeds, op.name: value}) for value in (zero, one)]
            if keeps[0] != keeps[1]:
                votes.add(keeps.index(True))
    return (zero, one)[votes.pop()] if len(votes) == 1 else None


def _phase(op: Any, outputs: Sequence[Any], dropouts: list[Mask], known: Mapping[str, Any]) -> Values | None:
    """Return the values of a placeholder that switches the operations of training on; None if it does not."""
    zero, one = _candidates(op)
    needed = [_needed(outputs, Constants({**known, op.name: value})) for value in (zero, one)]
    if needed[0] == needed[1]:
        return None
    kept = {mask.random for mask in dropouts if all(other.name in known for other in mask.placeholders)}
    effects = [sum(_belongs_to_training(other) and other not in kept for other in ops) for ops in needed]
    if effects[0] == effects[1]:
        # a keep probability of 1 may be all that is left of dropout in training
        effects = [sum(_belongs_to_training(other) for other in ops) for ops in needed]
    if effects[0] == effects[1]:
        return None
    return Values(zero, one) if effects[0] < effects[1] else Values(one, zero)


def _needed(outputs: Sequence[Any], constants: Constants) -> set[Any]:
    """Return the operations that the outputs depend on, without those that a constant condition or a product with 0 omits."""
    waiting, needed = list(outputs), set()
    while waiting:
        op = waiting.pop()
        if op in needed:
            continue
        needed.add(op)
        if op.type == "Merge":
            live = constants.live_input(op)
            waiting += [tensor.op for tensor in ([live] if live is not None else op.inputs)]
        elif op.type in ("Select", "SelectV2") and constants.value(op.inputs[0]) is not None:
            condition = constants.value(op.inputs[0])
            chosen = [] if np.all(condition) else [op.inputs[2]]
            waiting += [tensor.op for tensor in [*chosen, *([op.inputs[1]] if np.any(condition) else [])]]
        elif op.type == "Mul" and any(_is_zero(constants.value(tensor)) for tensor in op.inputs):
            continue
        else:
            waiting += _sources(op)
    return needed


def _is_zero(value: Any) -> bool:
    return value is not None and np.size(value) > 0 and not np.any(value)


def _belongs_to_training(op: Any) -> bool:
    """Return whether an operation draws random numbers or computes statistics of a batch."""
    if op.type in NORMALISATIONS:
        return bool(op.get_attr("is_training"))
    if op.type == "Mean" and (op.inputs[0].shape.rank or 0) > 1:
        axes = constant(op.inputs[1])
        return axes is not None and 0 in np.atleast_1d(axes)
    return op.type in RANDOM
