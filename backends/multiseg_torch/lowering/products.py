"""Matrix products with the fastest of PyTorch's libraries, and with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multiseg.worker.processor import is_intel

# oneDNN's matrix product in PyTorch. On processors that are not Intel's, MKL, which torch.mm calls, takes up to twice as long for
# few patches; from about 256 patches on, MKL is faster by a sixth. On Intel's, MKL takes 0.15 to 1 times as long as oneDNN for
# the gradient of the weights, whose sums are over few patches (`python benchmarks/lowering.py gradients`).
FEW = 256
# oneDNN multiplies a large matrix by few rows faster than the other way round: 1.04 to 1.5 times as fast for 16 to 96 rows,
# 0.99 to 1.06 for more, 0.6 to 1.1 for fewer; for small matrices 0.4 to 1.07 (`python benchmarks/lowering.py products`).
ROWS_TO_TURN = range(16, 97)
LARGE = 2**20  # elements
MKL_IS_FAST = is_intel()
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a`` (G, M, K) times the transpose of ``b`` (G, N, K), of shape (G, M, N). Either may be a transposed view."""
    if len(a) > 1:
        return torch.bmm(a, b.mT)
    rows, terms = a.shape[1:]  # patches are rows of the output, or terms of the weight gradient's sum
    few = terms >= FEW > rows if MKL_IS_FAST else min(rows, terms) < FEW
    if ONEDNN is not None and few and a.device.type == "cpu" and a.dtype == b.dtype == torch.float32:
        first, second = a[0], b[0]
        if len(first) in ROWS_TO_TURN and second.numel() >= LARGE and second.is_contiguous():
            result: Tensor = ONEDNN(second, _dense(first), None, "none", [], "").t()
        else:
            result = ONEDNN(first, _dense(second), None, "none", [], "")
    else:
        result = torch.mm(a[0], b[0].t())
    return result[None]


def _dense(matrix: Tensor) -> Tensor:
    """Return a matrix without gaps between its rows or columns; oneDNN takes 200 times as long for a second factor with gaps."""
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


class Product(torch.autograd.Function):
    """:func:`product` with its gradients, which are computed by it as well."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return no_view(product(a, b))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        needs_a, needs_b = ctx.needs_input_grad
        of_a = Product.apply(gradient, b.mT) if needs_a else None
        if not needs_b:
            return of_a, None
        if b.is_contiguous():
            return of_a, Product.apply(gradient.mT, a.mT)
        # return the gradient in the memory layout of the weights, so that it is not copied
        return of_a, Product.apply(a.mT, gradient.mT).mT


def no_view(output: Tensor) -> Tensor:
    """Return the same memory as a tensor that is no view: PyTorch refuses to change views that a Function returns in place."""
    return output.data


def multiplied(a: Tensor, b: Tensor) -> Tensor:
    """Return :func:`product` with gradients."""
    return Product.apply(*in_one_dtype(a, b))  # type: ignore[no-any-return]


def in_one_dtype(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors as PyTorch's own products take them: in the data type of torch.autocast where that is on."""
    if not torch.is_autocast_enabled(a.device.type):
        return a, b
    dtype = torch.get_autocast_dtype(a.device.type)
    return a.to(dtype), b.to(dtype)
