"""Lower convolutions to matrix products. The modules keep their parameters, names and shapes; only ``forward`` differs.

Which layers are lowered is listed for users, except 1x1 convolutions: these are products already.
"""

from __future__ import annotations

from torch import nn

from multiseg_torch.lowering import patches, points, windows
from multiseg_torch.lowering.patches import PatchConv2d, PatchConvTranspose2d
from multiseg_torch.lowering.points import PointConv2d
from multiseg_torch.lowering.windows import WindowConvTranspose2d

PATCHES = (PatchConv2d, PatchConvTranspose2d)
LISTED = (*PATCHES, WindowConvTranspose2d)
CLASSES = (*LISTED, PointConv2d)  # of lowered modules


def layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of ``model`` that are lowered and listed."""
    return [module for module in model.modules() if isinstance(module, LISTED)]


def copies_patches(model: nn.Module) -> bool:
    """Return whether ``model`` has layers whose patches are copied from NCHW."""
    return any(isinstance(module, PATCHES) for module in model.modules())


def lower(model: nn.Module) -> list[str]:
    """Lower all eligible layers of ``model`` in place and return the names of those that are listed."""
    names = []
    for name, module in model.named_modules():
        lowered = _lowered(module)
        if lowered is not None:
            module.__class__ = lowered
        if lowered in LISTED:
            names.append(name)
    return names


def _lowered(module: nn.Module) -> type[nn.Module] | None:
    """Return the class that computes a layer as a product; None if the layer's own is as fast, or a user's."""
    if type(module) is nn.Conv2d:
        return PatchConv2d if patches.divides_image(module) else PointConv2d if points.is_point(module) else None
    if type(module) is nn.ConvTranspose2d:
        if patches.divides_image(module) and module.output_padding == (0, 0):
            return PatchConvTranspose2d
        return WindowConvTranspose2d if windows.is_faster(module) else None
    return None
