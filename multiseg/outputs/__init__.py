"""The module multiseg.inference.outputs under its earlier name, for scripts that import it."""

from multiseg.inference.outputs import Output, writing

__all__ = ["Output", "writing"]
