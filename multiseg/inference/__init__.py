"""Test a trained network: one image, a list, a database, layer by layer."""

from multiseg.inference.options import Options
from multiseg.inference.output import Output

__all__ = ["Options", "Output"]
