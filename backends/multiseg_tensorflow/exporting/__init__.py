"""Export topologies as DIGITS TensorFlow files."""

from multiseg_tensorflow.exporting.writer import source

__all__ = ["source"]
