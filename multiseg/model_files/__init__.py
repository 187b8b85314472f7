"""Network and weights files of every backend: recognise, describe, read, write and copy them."""

from multiseg.model_files.reading import describe, read_weights

__all__ = ["describe", "read_weights"]
