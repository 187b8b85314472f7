"""TensorFlow, which lowers everything, with both orders of a transposed product among what is small."""

from multiseg_tensorflow import lowering
from multiseg_tensorflow.network import Network, probe

__all__ = ["Network", "probe"]

lowering.MIN_CHANNELS_PER_PIXEL = 1
