"""The module multiseg.inference.outputs under its earlier name, for scripts that import it."""

from multiseg.inference.outputs import writing

__all__ = ["writing"]
