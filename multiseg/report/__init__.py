"""Runs side by side: their figures, their pictures, one page that shows both."""

from multiseg.report.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
