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
BOOL, INT, FLOAT, STRING = _Field.TYPE_BOOL, _Field.TYPE_INT32, _Field.TYPE_FLOAT, _Field.TYPE_STRING
BYTES = _Field.TYPE_BYTES
PRECISION = "Precision"  # of ENUMS

# Fields of NVIDIA's fork for precision, memory and speed. They do not change what a network computes; see forks.py.
PRECISION_FIELDS: dict[str, dict[str, Any]] = {
    "NetParameter": {
        "default_forward_type": PRECISION, "default_backward_type": PRECISION, "default_forward_math": PRECISION,
        "default_backward_math": PRECISION, "global_grad_scale": FLOAT, "global_grad_scale_adaptive": BOOL,
        "default_cudnn_math_override": INT, "default_conv_algos_override": STRING, "eltwise_mem_sharing": BOOL,
        "reduce_buckets": INT,
    },
    "LayerParameter": {
        "forward_type": PRECISION, "backward_type": PRECISION, "forward_math": PRECISION, "backward_math": PRECISION,
        "cudnn_math_override": INT,
    },
    "ConvolutionParameter": {"conv_algos_override": STRING, "cudnn_convolution_algo_seeker": STRING},
    "DataParameter": {"cache": BOOL, "shuffle": BOOL, "threads": INT, "parser_threads": INT},
    "ImageDataParameter": {"cache": BOOL, "threads": INT},
    **{name: {"engine": "Engine"} for name in ("BNParameter", "BatchNormParameter", "DropoutParameter", "EltwiseParameter")},
}  # fmt: skip
REPEATED = "repeated"  # of a kind (REPEATED, kind)
# Fields that forks.py removes: transformations of images by SSD's and other forks' data layers, which multiseg's own replace,
# and dropout in tests (Bayesian SegNet), as an answer of multiseg does not depend on random numbers
TRANSFORMATION_FIELDS: dict[str, dict[str, Any]] = {
    "TransformationParameter": {
        "use_gpu_transform": BOOL, "crop_h": INT, "crop_w": INT, "resize_param": "ResizeParameter",
        "noise_param": "NoiseParameter", "distort_param": "DistortionParameter", "expand_param": "ExpansionParameter",
        "emit_constraint": "EmitConstraint",
    },
    "DropoutParameter": {"sample_weights_test": BOOL},
}  # fmt: skip
# Other fields of forks, which forks.py, losses.py and sources.py replace or remove
FORK_FIELDS: dict[str, dict[str, Any]] = {
    "LossParameter": {"weight_by_label_freqs": BOOL, "class_weighting": (REPEATED, FLOAT)},
    "PoolingParameter": {"ceil_mode": BOOL},
    "ConvolutionParameter": {"hole": INT, "hole_h": INT, "hole_w": INT},
    "BatchNormParameter": {"scale_bias": BOOL, "scale_filler": "FillerParameter", "bias_filler": "FillerParameter"},
    "ImageDataParameter": {"label_type": "LabelType"},
    "LayerParameter": {
        "smooth_l1_loss_param": "SmoothL1LossParameter", "dense_image_data_param": "DenseImageDataParameter",
        "permute_param": "PermuteParameter", "norm_param": "NormalizeParameter",
        "seg_accuracy_param": "SegAccuracyParameter",
        "shuffle_channel_param": "ShuffleChannelParameter", "crop_center_param": "CropCenterParameter",
        "unpooling_param": "UnpoolingParameter", "mat_write_param": "MatWriteParameter",
    },
    "V1LayerParameter": {
        "bn_param": "BNParameter", "interp_param": "InterpParameter", "upsample_param": "UpsampleParameter",
        "unpooling_param": "UnpoolingParameter", "prelu_param": "PReLUParameter", "reshape_param": "ReshapeParameter",
        "dense_image_data_param": "DenseImageDataParameter", "seg_accuracy_param": "SegAccuracyParameter",
        "mat_write_param": "MatWriteParameter",
    },
}  # fmt: skip
FORK_MESSAGES: dict[str, dict[str, Any]] = {
    "SmoothL1LossParameter": {"sigma": FLOAT},  # Fast R-CNN
    "DenseImageDataParameter": {  # SegNet
        "source": STRING, "batch_size": INT, "rand_skip": INT, "shuffle": BOOL, "new_height": INT, "new_width": INT,
        "is_color": BOOL, "root_folder": STRING, "label_divide_factor": FLOAT,
    },
    "SegAccuracyParameter": {  # DeepLab
        "top_k": INT, "axis": INT, "ignore_label": (REPEATED, INT), "reset": BOOL,
    },
    "MatWriteParameter": {"prefix": STRING, "source": STRING, "strip": INT, "period": INT},  # DeepLab
    "PermuteParameter": {"order": (REPEATED, INT)},  # SSD
    "NormalizeParameter": {  # ParseNet, SSD
        "across_spatial": BOOL, "scale_filler": "FillerParameter", "channel_shared": BOOL, "eps": FLOAT,
    },
    "ShuffleChannelParameter": {"group": INT},  # ShuffleNet
    "UnpoolingParameter": {  # DeconvNet
        "unpool": "UnpoolMethod", "pad": INT, "pad_h": INT, "pad_w": INT, "kernel_size": INT, "kernel_h": INT, "kernel_w": INT,
        "stride": INT, "stride_h": INT, "stride_w": INT, "unpool_size": INT, "unpool_h": INT, "unpool_w": INT,
    },
    "CropCenterParameter": {"crop_size": (REPEATED, INT)},
    "ResizeParameter": {
        "prob": FLOAT, "resize_mode": "ResizeMode", "height": INT, "width": INT, "height_scale": INT, "width_scale": INT,
        "pad_mode": "PadMode", "pad_value": (REPEATED, FLOAT), "interp_mode": (REPEATED, "InterpMode"),
    },
    "SaltPepperParameter": {"fraction": FLOAT, "value": (REPEATED, FLOAT)},
    "NoiseParameter": {
        "prob": FLOAT, "hist_eq": BOOL, "inverse": BOOL, "decolorize": BOOL, "gauss_blur": BOOL, "jpeg": FLOAT,
        "posterize": BOOL, "erode": BOOL, "saltpepper": BOOL, "saltpepper_param": "SaltPepperParameter", "clahe": BOOL,
        "convert_to_hsv": BOOL, "convert_to_lab": BOOL,
    },
    "DistortionParameter": {
        "brightness_prob": FLOAT, "brightness_delta": FLOAT, "contrast_prob": FLOAT, "contrast_lower": FLOAT,
        "contrast_upper": FLOAT, "hue_prob": FLOAT, "hue_delta": FLOAT, "saturation_prob": FLOAT,
        "saturation_lower": FLOAT, "saturation_upper": FLOAT, "random_order_prob": FLOAT,
    },
    "ExpansionParameter": {"prob": FLOAT, "max_expand_ratio": FLOAT},
    "EmitConstraint": {"emit_type": "EmitType", "emit_overlap": FLOAT},
}  # fmt: skip
# Fields and messages of the layers of forks that the Caffe of `multiseg install-caffe` has: kind and number. The patch of the
# recipe (install/recipe) has the same. Numbers are those of the forks where they are free in BVLC's messages and do not
# differ between forks: BN is one type with the fields of SegNet (scale_filler, shift_filler, bn_mode) and PSPNet (the others).
LAYER_FIELDS: dict[str, dict[str, tuple[Any, int]]] = {
    "BNParameter": {
        "slope_filler": ("FillerParameter", 1), "bias_filler": ("FillerParameter", 2), "momentum": (FLOAT, 3),
        "eps": (FLOAT, 4), "frozen": (BOOL, 5), "scale_filler": ("FillerParameter", 8310001),
        "shift_filler": ("FillerParameter", 8310002), "bn_mode": ("BNMode", 8310003),
    },
    "InterpParameter": {
        "height": (INT, 1), "width": (INT, 2), "zoom_factor": (INT, 3), "shrink_factor": (INT, 4), "pad_beg": (INT, 5),
        "pad_end": (INT, 6),
    },
    "UpsampleParameter": {
        "scale": (INT, 1), "scale_h": (INT, 2), "scale_w": (INT, 3), "pad_out_h": (BOOL, 4), "pad_out_w": (BOOL, 5),
        "upsample_h": (INT, 6), "upsample_w": (INT, 7),
    },
    "LayerParameter": {
        "bn_param": ("BNParameter", 8310001), "interp_param": ("InterpParameter", 8310002),
        "upsample_param": ("UpsampleParameter", 8310003),
    },
}  # fmt: skip
# Arrays as NVIDIA's fork writes them, also in 16 bits: the bytes of their numbers. Kind and number, as in that fork.
BLOB_FIELDS: dict[str, dict[str, tuple[Any, int]]] = {
    "BlobProto": {"raw_data_type": ("StorageType", 10), "raw_data": (BYTES, 12)},
}
ENUMS = {
    "StorageType": ("DOUBLE", "FLOAT", "FLOAT16", "INT", "UINT"),
    "Precision": ("DOUBLE", "FLOAT", "FLOAT16"),
    "LabelType": ("NONE", "IMAGE", "PIXEL"),
    "BNMode": ("LEARN", "INFERENCE"),
    "Engine": ("DEFAULT", "CAFFE", "CUDNN"),
    "UnpoolMethod": ("MAX", "AVE", "TILE"),
    "ResizeMode": ("WARP", "FIT_SMALL_SIZE", "FIT_LARGE_SIZE_AND_PAD"),
    "PadMode": ("CONSTANT", "MIRRORED", "REPEAT_NEAREST"),
    "InterpMode": ("LINEAR", "AREA", "NEAREST", "CUBIC", "LANCZOS4"),
    "EmitType": ("CENTER", "MIN_OVERLAP"),
}
DEFAULTS = {
    "SmoothL1LossParameter.sigma": "1",
    "NormalizeParameter.across_spatial": "true",
    "NormalizeParameter.channel_shared": "true",
    "NormalizeParameter.eps": "1e-10",
    "BNParameter.momentum": "0.9",
    "BNParameter.eps": "1e-5",
    "InterpParameter.zoom_factor": "1",
    "InterpParameter.shrink_factor": "1",
    "UpsampleParameter.scale": "2",
}
# Types of forks in the older syntax, `layers { type: ... }`, with their numbers in caffemodels where they are known: those of
# the forks of FCN (CROP), DeconvNet and SegNet (BN, UNPOOLING), which agree. Zero: files name them in words only.
V1_TYPES = {
    "BN": 43, "CROP": 40, "UNPOOLING": 42, "DENSE_IMAGE_DATA": 0, "IMAGE_SEG_DATA": 0, "INTERP": 0, "MAT_WRITE": 0,
    "PRELU": 0, "RESHAPE": 0, "SEG_ACCURACY": 0, "UPSAMPLE": 0,
}  # fmt: skip
# Files name fields in words. These numbers are free in BVLC's messages, and not those of the forks, where they are used twice.
FIRST_NUMBER = 8300000


def _definitions() -> Any:
    """Return Caffe's messages, with those fields of Caffe's forks that multiseg supports."""
    compiled = Path(__file__).with_name("messages") / "caffe.desc"
    file = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file[0]
    for name in (*FORK_MESSAGES, *(name for name in LAYER_FIELDS if name != "LayerParameter")):
        file.message_type.add(name=name)
    messages = {message.name: message for message in file.message_type}
    number = FIRST_NUMBER
    for table in (PRECISION_FIELDS, TRANSFORMATION_FIELDS, FORK_FIELDS, FORK_MESSAGES):
        for name, fields in table.items():
            for field, kind in fields.items():
                number += 1
                _add(messages[name], field, kind, number)
    (types,) = (enum for enum in messages["V1LayerParameter"].enum_type if enum.name == "LayerType")
    for index, (name, own_number) in enumerate(V1_TYPES.items()):
        types.value.add(name=name, number=own_number or FIRST_NUMBER + index)
    for name, numbered in (*LAYER_FIELDS.items(), *BLOB_FIELDS.items()):
        for field, (kind, own_number) in numbered.items():
            _add(messages[name], field, kind, own_number)
    return file


def _add(message: Any, field: str, kind: Any, number: int) -> None:
    """Add a field to a message: of a simple type, an enumeration of ENUMS, or a message; optional or (REPEATED, kind)."""
    repeated, kind = (True, kind[1]) if isinstance(kind, tuple) else (False, kind)
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    added = message.field.add(name=field, number=number, label=label)
    if isinstance(kind, int):
        added.type = kind
    elif kind in ENUMS:
        added.type, added.type_name = _Field.TYPE_ENUM, f".caffe.{message.name}.{kind}"
        if kind not in [enum.name for enum in message.enum_type]:
            enum = message.enum_type.add(name=kind)
            for value, name in enumerate(ENUMS[kind]):
                enum.value.add(name=name, number=value)
    else:
        added.type, added.type_name = _Field.TYPE_MESSAGE, f".caffe.{kind}"
    added_default = DEFAULTS.get(f"{message.name}.{field}")
    if added_default is not None:
        added.default_value = added_default


pool = descriptor_pool.DescriptorPool()
pool.AddSerializedFile(_definitions().SerializeToString())


def message(name: str) -> Any:
    """Return the class of Caffe's protobuf message of this name."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))


NetParameter = message("NetParameter")
LayerParameter = message("LayerParameter")
ParamSpec = message("ParamSpec")
BlobProto = message("BlobProto")
BNParameter = message("BNParameter")
SolverParameter = message("SolverParameter")
SolverState = message("SolverState")
ConvolutionParameter = message("ConvolutionParameter")
EltwiseParameter = message("EltwiseParameter")
LRNParameter = message("LRNParameter")
PoolingParameter = message("PoolingParameter")
ReductionParameter = message("ReductionParameter")
UnpoolingParameter = message("UnpoolingParameter")
V1LayerParameter = message("V1LayerParameter")
TRAIN, TEST = (pool.FindEnumTypeByName("caffe.Phase").values_by_name[name].number for name in ("TRAIN", "TEST"))
