"""Upgrade networks in Caffe's earlier syntaxes to the current one, as Caffe does (src/caffe/util/upgrade_proto.cpp)."""

from __future__ import annotations

from typing import Any

from multiseg.errors import ModelError
from multiseg_caffe import aligned_crops, proto

# V1 names types in capitals: INNER_PRODUCT is InnerProduct. These are the exceptions.
_TYPES = {
    "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "BNLL": "BNLL", "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col", "LRN": "LRN", "MVN": "MVN", "RELU": "ReLU", "SOFTMAX_LOSS": "SoftmaxWithLoss", "TANH": "TanH",
    "BN": "BN", "PRELU": "PReLU",
}  # fmt: skip
_PER_BLOB = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}
_TRANSFORMS = (
    "scale",
    "mean_file",
    "crop_size",
    "mirror",
)  # formerly fields of data_param etc., now of transform_param


def upgrade(net: Any, path: str) -> None:
    """Upgrade a NetParameter to Caffe's current syntax, in place. Raises ModelError for syntax that Caffe rejects."""
    if net.layers:
        _from_v1(net, path)
    if net.input:
        _input_layer(net, path)
    for layer in net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for param in layer.param:  # older files set lr_mult: 0 here, as statistics are not learned by gradient
                param.lr_mult = param.decay_mult = 0


def _from_v1(net: Any, path: str) -> None:
    if net.layer:
        raise ModelError(
            f"{path}: mixes `layer {{ ... }}` with the older `layers {{ ... }}`; Caffe accepts only one of them"
        )
    types = proto.V1LayerParameter.DESCRIPTOR.enum_types_by_name["LayerType"].values_by_number
    fields = proto.LayerParameter.DESCRIPTOR.fields_by_name
    for old in net.layers:
        if old.HasField("layer"):
            raise ModelError(
                f"{path}: is in Caffe's first syntax (layers {{ layer {{ ... }} }}), of 2013; "
                "upgrade it with Caffe's tool upgrade_net_proto_text (upgrade_net_proto_binary for weights)"
            )
        new = net.layer.add()
        for field, value in old.ListFields():
            if field.name == "type":
                name = types[value].name
                new.type = _TYPES.get(name, name.title().replace("_", ""))
            elif field.name in _PER_BLOB:
                while len(new.param) < len(value):
                    new.param.add()
                for i, setting in enumerate(value):
                    setattr(new.param[i], _PER_BLOB[field.name], setting)
            elif fields[field.name].message_type is None:
                target = getattr(new, field.name)
                target.extend(value) if hasattr(target, "extend") else setattr(new, field.name, value)
            else:
                getattr(new, field.name).MergeFrom(value)
        for data_param in (new.data_param, new.image_data_param, new.window_data_param):
            for key in _TRANSFORMS:
                if data_param.HasField(key):
                    setattr(new.transform_param, key, getattr(data_param, key))
                    data_param.ClearField(key)
    del net.layers[:]
    aligned_crops.set_offsets(net, path)  # in this syntax, Crop has no field for them


def _input_layer(net: Any, path: str) -> None:
    """Replace the fields input, input_dim and input_shape by an Input layer, which has no shape if the file has none."""
    shapes = [list(shape.dim) for shape in net.input_shape]
    shapes = shapes or [list(net.input_dim[i : i + 4]) for i in range(0, len(net.input_dim), 4)]
    if shapes and (len(shapes) != len(net.input) or (not net.input_shape and len(net.input_dim) % 4)):
        raise ModelError(
            f"{path}: has {len(net.input)} `input` and sizes for {len(shapes)}; specify input_shape {{ dim: ... }} once "
            "for each input, or input_dim four times"
        )
    rest = list(net.layer)
    del net.layer[:]
    layer = net.layer.add(name="input", type="Input", top=net.input)
    for shape in shapes:
        layer.input_param.shape.add(dim=shape)
    net.layer.extend(rest)
    for field in ("input", "input_dim", "input_shape"):
        net.ClearField(field)
