"""Write networks as the source of another framework, or as ONNX."""

from multiseg.exporting.files import export

__all__ = ["export"]
