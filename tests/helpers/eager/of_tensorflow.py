"""TensorFlow, which lowers everything."""

from multiseg_tensorflow.lowering import products, upsampling
from multiseg_tensorflow.network import Network, probe

__all__ = ["Network", "probe"]

products.SMALLEST_KERNEL = 1
upsampling.SMALLEST_STRIDE = 2
