"""TensorFlow, which lowers everything, with both orders of a transposed product among what is small."""

from multiseg_tensorflow.lowering import patches, upsampling
from multiseg_tensorflow.network import Network, probe

__all__ = ["Network", "probe"]

patches.MIN_CHANNELS_PER_PIXEL = 1
upsampling.SMALLEST_STRIDE = 2
