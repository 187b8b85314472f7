"""PyTorch without its rule of cost, with products by both libraries among what is small."""

from multiseg_torch import lowering
from multiseg_torch.network import Network, probe

__all__ = ["Network", "probe"]

lowering.SMALLEST_WINDOW = 0
lowering.FEW = 8
