"""What calls of PyTorch's functions do to values, beyond the rules of multiseg_torch.describing.functions."""

from __future__ import annotations

import torch

# Functions of two operands for which a tensor of equal constants is a number, and whether the order does not matter.
ARITHMETIC = {
    **dict.fromkeys(("add", "__add__", "__radd__", "mul", "__mul__", "__rmul__", "multiply"), True),
    **dict.fromkeys(("sub", "__sub__", "div", "true_divide", "__truediv__", "pow", "__pow__"), False),
}
# Functions whose result depends on the shape of a tensor, not on its values.
CONSTANTS = (
    "ones_like",
    "zeros_like",
    "full_like",
    "empty_like",
    "new_tensor",
    "new_full",
    "new_zeros",
    "new_ones",
    "new_empty",
)
RESHAPES = (
    "view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten", "view_as", "reshape_as", "contiguous", "clone", "detach",
    "to", "float", "type_as", "requires_grad", "alias", "__get__",
)  # fmt: skip


def keeps_values(before: torch.dtype, after: torch.dtype) -> bool:
    """Return whether a conversion of numbers keeps them, up to the rounding of float32."""
    return after == before or after in (torch.float32, torch.float64)


# Calls that do not change values; a reshape to the same shape is treated likewise.
NOTHING = ("contiguous", "clone", "detach", "to", "float", "type_as", "requires_grad", "type", "cpu", "cuda", "alias")
