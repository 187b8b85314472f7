"""Moving weights from one framework's files to another's."""

from multiseg.conversion.conversion import Converted, convert

__all__ = ["Converted", "convert"]
