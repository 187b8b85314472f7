"""Static check, by mypy alone, that the backends' modules have the protocols of multiseg.topology.interfaces. Never imported."""

import multiseg_caffe.alone
import multiseg_caffe.exporting
import multiseg_caffe.reader
import multiseg_caffe.weights_files
import multiseg_tensorflow.alone
import multiseg_tensorflow.exporting
import multiseg_tensorflow.reader
import multiseg_tensorflow.weights_files
import multiseg_torch.alone
import multiseg_torch.exporting
import multiseg_torch.onnx_export
import multiseg_torch.reader
import multiseg_torch.weights_files

from multiseg.topology.interfaces import AloneWriter, Exporter, OnnxRunner, OnnxWriter, Reader, WeightsWriter

READERS: tuple[Reader, ...] = (multiseg_caffe.reader, multiseg_torch.reader, multiseg_tensorflow.reader)
EXPORTERS: tuple[Exporter, ...] = (
    multiseg_caffe.exporting.source,
    multiseg_torch.exporting.source,
    multiseg_tensorflow.exporting.source,
)
WRITERS: tuple[WeightsWriter, ...] = (
    multiseg_caffe.weights_files.write,
    multiseg_torch.weights_files.write,
    multiseg_tensorflow.weights_files.write,
)
ONNX_WRITERS: tuple[OnnxWriter, ...] = (multiseg_torch.onnx_export.write,)
ONNX_RUNNERS: tuple[OnnxRunner, ...] = (multiseg_torch.onnx_export,)
ALONE_WRITERS: tuple[AloneWriter, ...] = (
    multiseg_caffe.alone.lines,
    multiseg_torch.alone.lines,
    multiseg_tensorflow.alone.lines,
)
