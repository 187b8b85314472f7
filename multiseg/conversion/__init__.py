"""Moving weights from one framework's files to another's."""

from multiseg.conversion.conversion import convert
from multiseg.conversion.converted import Converted

__all__ = ["Converted", "convert"]
