"""Torch7 modules that PyTorch lacks, for batches. Dimensions count from 1, as in Torch7; the first is the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Concat(nn.Sequential):
    """Concatenate the modules' outputs for the same input along a dimension."""

    def __init__(self, children: Sequence[nn.Module], dimension: int) -> None:
        super().__init__(*children)
        self.dimension = dimension

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([module(x) for module in self], self.dimension - 1)


class DepthConcat(Concat):
    """Concat of outputs of different sizes: smaller ones are centred in zeros, an extra row or column is at the bottom or right
    (https://github.com/torch/nn/blob/master/DepthConcat.lua)."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = [module(x) for module in self]
        largest = [max(sizes) for sizes in zip(*(output.shape for output in outputs))]
        padded = []
        for output in outputs:
            pads = []  # F.pad starts with the last axis
            for axis in reversed(range(1, output.ndim)):
                missing = 0 if axis == self.dimension - 1 else largest[axis] - output.shape[axis]
                pads += [missing // 2, missing - missing // 2]
            padded.append(F.pad(output, pads) if any(pads) else output)
        return torch.cat(padded, self.dimension - 1)


MOST_VALUES = (
    10_000  # in a table with all tables in it; tables that hold another one twice double the number in each level
)


def _bounded(table: list[Any]) -> list[Any]:
    """Return a table. Raise ValueError if it has more than MOST_VALUES values, counting shared ones with each use."""
    waiting, count = [table], 0
    while waiting:
        for value in waiting.pop():
            count += 1
            if count > MOST_VALUES:
                raise ValueError(f"makes a table of more than {MOST_VALUES} values")
            if isinstance(value, list):
                waiting.append(value)
    return table


class ConcatTable(nn.Sequential):
    """Return the modules' outputs for the same input as a table."""

    def forward(self, x: Any) -> list[Any]:
        return _bounded([module(x) for module in self])


class ParallelTable(nn.Sequential):
    """Apply each module to the corresponding element of the input table."""

    def forward(self, table: list[Any]) -> list[Any]:
        if len(_table(table)) != len(self):
            raise ValueError(f"has {len(self)} modules for {len(table)} inputs")
        return _bounded([module(x) for module, x in zip(self, table)])


class Parallel(nn.Sequential):
    """Apply each module to one element of a dimension, and concatenate the outputs along another one."""

    def __init__(self, children: Sequence[nn.Module], dimension: int, joined: int) -> None:
        super().__init__(*children)
        self.dimension, self.joined = dimension, joined

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[self.dimension - 1] != len(self):
            raise ValueError(f"has {len(self)} modules for dimension {self.dimension} of {x.shape[self.dimension - 1]}")
        parts = [module(x.select(self.dimension - 1, index)) for index, module in enumerate(self)]
        return torch.cat(parts, self.joined - 1)


class Bottle(nn.Sequential):
    """Apply a module to inputs of ``dims`` axes, with the leading axes of an input of more combined into the first one."""

    def __init__(self, module: nn.Module, dims: int) -> None:
        super().__init__(module)
        self.dims = dims

    def forward(self, x: Tensor) -> Any:
        leading = x.shape[: x.ndim - self.dims]
        if not leading:
            return self[0](x)
        y = self[0](x.reshape(-1, *x.shape[len(leading) + 1 :]))
        return y.reshape(*leading, y.shape[0] // math.prod(leading), *y.shape[1:])


class Step(NamedTuple):
    """A step of a graph: a module applied to the values of earlier steps, an element of a table, or both absent."""

    inputs: tuple[int, ...]
    module: int | None = None
    select: int | None = None
    is_list: bool = False  # the value is a table of the inputs, also of one


class Graph(nn.Sequential):
    """nn.gModule of nngraph: steps in the order of their computation; those without inputs and module are the input.

    The value of the last step is the output. As in nngraph, the value of several inputs is a table of them.
    """

    def __init__(self, children: Sequence[nn.Module], steps: Sequence[Step]) -> None:
        super().__init__(*children)
        self.steps = steps

    def forward(self, x: Any) -> Any:
        values: list[Any] = []
        for step in self.steps:
            inputs = [values[index] for index in step.inputs]
            value = x if not inputs else inputs[0] if len(inputs) == 1 and not step.is_list else _bounded(inputs)
            if step.select is not None:
                if len(_table(value)) < step.select:
                    raise ValueError(f"selects value {step.select} of {len(value)}")
                value = value[step.select - 1]
            values.append(value if step.module is None else self[step.module](value))
        return values[-1]


class JoinTable(nn.Module):
    """Concatenate a table's tensors along a dimension, plus one if the inputs have one axis more than ``dims``."""

    def __init__(self, dimension: int, dims: int | None) -> None:
        super().__init__()
        self.dimension, self.dims = dimension, dims

    def forward(self, table: list[Tensor]) -> Tensor:
        return torch.cat(_table(table), _axis(self.dimension, self.dims, table[0]))


class Table(nn.Module):
    """Apply a function to a table: select, narrow, flatten."""

    def __init__(self, function: Callable[[list[Any]], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, table: list[Any]) -> Any:
        return self.function(_table(table))


ELEMENTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Sum": torch.add,
    "Mul": torch.mul,
    "Sub": torch.sub,
    "Div": torch.div,
    "Max": torch.maximum,
    "Min": torch.minimum,
}


class Elementwise(nn.Module):
    """Combine a table's tensors element by element: Sum, Mul, Sub, Div, Max or Min."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, table: list[Tensor]) -> Tensor:
        if any(other.shape != table[0].shape for other in _table(table)):
            shapes = " and ".join(str(tuple(tensor.shape[1:])) for tensor in table)
            raise ValueError(f"needs inputs of the same shape, they are {shapes}")
        result = table[0]
        for other in table[1:]:
            result = ELEMENTWISE[self.operation](result, other)
        return result


class Function(nn.Module):
    """Apply a function to a tensor."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Weighted(nn.Module):
    """Multiply by a weight, or add a bias, of a size that is repeated along axes of size 1."""

    def __init__(self, part: str, size: list[int]) -> None:
        super().__init__()
        per_channel = len(size) > 2 and sum(count > 1 for count in size) <= 1 and size[-2:] == [1, 1]
        self.register_parameter(part, nn.Parameter(torch.empty(math.prod(size) if per_channel else tuple(size))))
        self.part, self.size = part, tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        values = getattr(self, self.part).reshape((1,) * (x.ndim - len(self.size)) + self.size)
        return x * values if self.part == "weight" else x + values


class MaxPool(nn.MaxPool2d):
    """A pooling that keeps the indices of its maxima, and the size of its input, for MaxUnpool."""

    def forward(self, x: Tensor) -> Tensor:
        self.size = x.shape[-2:]
        y, self.indices = F.max_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, return_indices=True
        )
        return y


class MaxUnpool(nn.Module):
    """Put values where a pooling found its maxima, among zeros, in the size of that pooling's input."""

    def __init__(self, pooling: nn.MaxPool2d) -> None:
        super().__init__()
        pooling.__class__ = MaxPool
        self.pooling = [pooling]  # not a module of its own

    def forward(self, x: Tensor) -> Tensor:
        (pooling,) = self.pooling
        indices = getattr(pooling, "indices", None)
        if indices is None:
            raise ValueError("its pooling is not computed before it")
        return F.max_unpool2d(x, indices, pooling.kernel_size, pooling.stride, output_size=pooling.size)


class SplitTable(nn.Module):
    """Return the elements along a dimension as a table, without that dimension."""

    def __init__(self, dimension: int, dims: int | None) -> None:
        super().__init__()
        self.dimension, self.dims = dimension, dims

    def forward(self, x: Tensor) -> list[Tensor]:
        axis = _axis(self.dimension, self.dims, x)
        return _bounded([x.select(axis, index) for index in range(x.shape[axis])])


class View(nn.Module):
    """Reshape each image. As in Torch7, ``dims`` is the number of axes of an image; without it, -1 is inferred from all
    remaining elements, the batch included (https://github.com/torch/nn/blob/master/View.lua)."""

    def __init__(self, size: list[int], dims: int | None) -> None:
        super().__init__()
        self.size, self.dims = size, dims

    def forward(self, x: Tensor) -> Tensor:
        if self.dims is not None and x.ndim > self.dims:
            return x.reshape(math.prod(x.shape[: x.ndim - self.dims]), *self.size)
        if self.size == [-1]:
            return x.flatten(1)
        return x.reshape(self.size if -1 in self.size else [-1, *self.size])


class Reshape(nn.Module):
    """Reshape each image, or the whole batch if ``whole``."""

    def __init__(self, size: list[int], whole: bool) -> None:
        super().__init__()
        self.size, self.whole = size, whole

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.size if self.whole else [x.shape[0], *self.size])


class Transpose(nn.Module):
    """Swap pairs of dimensions, one pair after the other."""

    def __init__(self, pairs: list[tuple[int, int]], dims: int | None) -> None:
        super().__init__()
        self.pairs, self.dims = pairs, dims

    def forward(self, x: Tensor) -> Tensor:
        order = list(range(x.ndim))
        for pair in self.pairs:
            a, b = (_axis(each, self.dims, x) for each in pair)
            order[a], order[b] = order[b], order[a]
        return x.permute(order).contiguous()


class Squeeze(nn.Module):
    """Remove the axes of size 1, except the batch, or one specified axis."""

    def __init__(self, dimension: int | None, dims: int | None) -> None:
        super().__init__()
        self.dimension, self.dims = dimension, dims

    def forward(self, x: Tensor) -> Tensor:
        if self.dimension is not None:
            return x.squeeze(_axis(self.dimension, self.dims, x))
        return x.reshape(x.shape[0], *(size for size in x.shape[1:] if size != 1))


class Unsqueeze(nn.Module):
    """Insert an axis of size 1."""

    def __init__(self, position: int, dims: int | None) -> None:
        super().__init__()
        self.position, self.dims = position, dims

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(_axis(self.position, self.dims, x))


class Narrow(nn.Module):
    """Return ``length`` elements from ``index`` on; negative values count from the end."""

    def __init__(self, dimension: int, index: int, length: int) -> None:
        super().__init__()
        self.dimension, self.index, self.length = dimension, index, length

    def forward(self, x: Tensor) -> Tensor:
        axis = _axis(self.dimension, None, x)
        start = self.index - 1 if self.index > 0 else x.shape[axis] + self.index
        length = self.length if self.length > 0 else x.shape[axis] - start + self.length + 1
        return x.narrow(axis, start, length)


class Select(nn.Module):
    """Select one element along a dimension, and remove the dimension."""

    def __init__(self, dimension: int, index: int) -> None:
        super().__init__()
        self.dimension, self.index = dimension, index

    def forward(self, x: Tensor) -> Tensor:
        return x.select(_axis(self.dimension, None, x), self.index - 1 if self.index > 0 else self.index)


class Padding(nn.Module):
    """Pad a dimension with ``pad`` values at the end, or at the start if negative."""

    def __init__(self, dimension: int, pad: int, dims: int | None, value: float) -> None:
        super().__init__()
        self.dimension, self.pad, self.dims, self.value = dimension, pad, dims, value

    def forward(self, x: Tensor) -> Tensor:
        axis = self.dimension - 1 + (self.dims is not None and x.ndim != self.dims)
        if axis == 1 and x.ndim == 4:  # a constant for each channel: in the vocabulary, padding is around an image
            added = x.new_full((x.shape[0], abs(self.pad), *x.shape[2:]), self.value)
            return torch.cat([added, x] if self.pad < 0 else [x, added], 1)
        pads = [0, 0] * (x.ndim - 1 - axis) + [max(-self.pad, 0), max(self.pad, 0)]
        return F.pad(x, pads, value=self.value)


class Reduce(nn.Module):
    """Reduce a dimension by mean, sum, max or min, and remove it unless ``keep``."""

    def __init__(self, operation: str, dimension: int, dims: int | None, keep: bool = False) -> None:
        super().__init__()
        self.operation, self.dimension, self.dims, self.keep = operation, dimension, dims, keep

    def forward(self, x: Tensor) -> Tensor:
        axis = _axis(self.dimension, self.dims, x)
        return {"mean": torch.mean, "sum": torch.sum, "max": torch.amax, "min": torch.amin}[self.operation](
            x, axis, self.keep
        )


class UpSamplingBilinear(nn.Module):
    """Upsample with aligned corners to (size - 1) * (scale - 1) + size pixels, or to a specified (height, width)
    (https://github.com/torch/nn/blob/master/SpatialUpSamplingBilinear.lua)."""

    def __init__(self, scale: int | None, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.scale, self.size = scale, size

    def forward(self, x: Tensor) -> Tensor:
        size = self.size or tuple((n - 1) * ((self.scale or 1) - 1) + n for n in x.shape[2:])
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _table(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError("needs a table of tensors")
    return value


def _axis(dimension: int, dims: int | None, x: Tensor) -> int:
    """Return the zero-based axis of Torch7's dimension, which excludes the batch if the input has one axis more than ``dims``."""
    if dimension < 0:
        return int(x.ndim) + dimension
    return dimension - 1 + int(dims is not None and x.ndim == dims + 1)
