"""Proving that frameworks agree: the same weights and batches through each, every number against a float64 reference."""

from multiseg.parity.check import check_parity
from multiseg.parity.result import Parity
from multiseg.parity.rows import Row

__all__ = ["Parity", "Row", "check_parity"]
