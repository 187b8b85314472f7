"""Write described networks as prototxts."""

from multiseg_caffe.exporting.writer import source

__all__ = ["source"]
