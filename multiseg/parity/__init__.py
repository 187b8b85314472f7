"""Proving that frameworks agree: the same weights and batches through each, every number against a float64 reference."""

from multiseg.parity.checking import check_parity
from multiseg.parity.result import Parity
from multiseg.parity.rows import ParityRow

__all__ = ["Parity", "ParityRow", "check_parity"]
