"""The class Stop of multiseg.training.signals under its earlier name, for scripts that import it."""

from multiseg.training.signals import Stop

__all__ = ["Stop"]
