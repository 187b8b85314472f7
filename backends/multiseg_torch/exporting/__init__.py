"""Write described networks as PyTorch modules."""

from multiseg_torch.exporting.writer import names, source

__all__ = ["names", "source"]
