"""The module multiseg.dataset.augmentation under its earlier name, for scripts that import it."""

from multiseg.dataset.augmentation import FLIPS, Augmentation, Augmented

__all__ = ["FLIPS", "Augmentation", "Augmented"]
