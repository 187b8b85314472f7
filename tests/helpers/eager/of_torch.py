"""PyTorch without its rule of cost, with products by both libraries among what is small."""

from multiseg_torch.lowering import patches, products, windows
from multiseg_torch.network import Network, probe

__all__ = ["Network", "probe"]

patches.SMALLEST_WINDOW = 0
products.FEW = 8
windows.SMALLEST_STRIDE = 2
