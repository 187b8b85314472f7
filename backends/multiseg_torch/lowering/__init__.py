"""Lower convolutions to matrix products. The modules keep their parameters, names and shapes; only ``forward`` differs."""

from __future__ import annotations

from torch import nn

from multiseg_torch.lowering import patches, windows
from multiseg_torch.lowering.patches import PatchConv2d, PatchConvTranspose2d
from multiseg_torch.lowering.windows import WindowConvTranspose2d

PATCHES = (PatchConv2d, PatchConvTranspose2d)
CLASSES = (*PATCHES, WindowConvTranspose2d)  # of lowered modules


def layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of ``model`` that are lowered."""
    return [module for module in model.modules() if isinstance(module, CLASSES)]


def copies_patches(model: nn.Module) -> bool:
    """Return whether ``model`` has layers whose patches are copied from NCHW."""
    return any(isinstance(module, PATCHES) for module in model.modules())


def lower(model: nn.Module) -> list[str]:
    """Lower all eligible layers of ``model`` in place and return their names."""
    names = []
    for name, module in model.named_modules():
        if type(module) is nn.Conv2d and patches.divides_image(module):
            module.__class__ = PatchConv2d
        elif type(module) is nn.ConvTranspose2d and patches.divides_image(module) and module.output_padding == (0, 0):
            module.__class__ = PatchConvTranspose2d
        elif type(module) is nn.ConvTranspose2d and windows.is_faster(module):
            module.__class__ = WindowConvTranspose2d
        else:
            continue
        names.append(name)
    return names
