"""Caffe's protobuf messages, without pycaffe.

They are defined in messages/caffe.proto, a copy of Caffe's file; messages/caffe.desc is the output of protoc for it. They
are in a separate descriptor pool: otherwise a process that also imports pycaffe would define the same names twice, which
protobuf rejects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto


def _definitions() -> Any:
    """Return Caffe's messages, with those fields of Caffe's forks that multiseg supports."""
    compiled = Path(__file__).with_name("messages") / "caffe.desc"
    file = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file[0]
    messages = {message.name: message for message in file.message_type}
    # NVIDIA's fork; removed together with the data layer
    messages["TransformationParameter"].field.add(
        name="use_gpu_transform", number=8, type=_Field.TYPE_BOOL, label=_Field.LABEL_OPTIONAL
    )
    # Fast R-CNN's fork; multiseg_caffe.losses replaces this layer by layers of BVLC Caffe
    smooth_l1 = file.message_type.add(name="SmoothL1LossParameter")
    smooth_l1.field.add(name="sigma", number=1, type=_Field.TYPE_FLOAT, label=_Field.LABEL_OPTIONAL, default_value="1")
    messages["LayerParameter"].field.add(
        name="smooth_l1_loss_param",
        number=8266712,
        type=_Field.TYPE_MESSAGE,
        type_name=".caffe.SmoothL1LossParameter",
        label=_Field.LABEL_OPTIONAL,
    )
    return file


pool = descriptor_pool.DescriptorPool()
pool.AddSerializedFile(_definitions().SerializeToString())


def message(name: str) -> Any:
    """Return the class of Caffe's protobuf message of this name."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))


NetParameter = message("NetParameter")
LayerParameter = message("LayerParameter")
ParamSpec = message("ParamSpec")
BlobProto = message("BlobProto")
SolverParameter = message("SolverParameter")
SolverState = message("SolverState")
ConvolutionParameter = message("ConvolutionParameter")
EltwiseParameter = message("EltwiseParameter")
LRNParameter = message("LRNParameter")
PoolingParameter = message("PoolingParameter")
ReductionParameter = message("ReductionParameter")
V1LayerParameter = message("V1LayerParameter")
TRAIN, TEST = (pool.FindEnumTypeByName("caffe.Phase").values_by_name[name].number for name in ("TRAIN", "TEST"))
