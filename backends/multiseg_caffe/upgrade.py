"""Networks in Caffe's earlier syntaxes, brought to the current one as Caffe itself does (src/caffe/util/upgrade_proto.cpp)."""

from __future__ import annotations

from typing import Any

from multiseg.errors import ModelError
from multiseg_caffe import proto

# V1 names its types in capitals: INNER_PRODUCT is InnerProduct. These are other than that.
_TYPES = {
    "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "BNLL": "BNLL", "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col", "LRN": "LRN", "MVN": "MVN", "RELU": "ReLU", "SOFTMAX_LOSS": "SoftmaxWithLoss", "TANH": "TanH",
}  # fmt: skip
_PER_BLOB = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}
_TRANSFORMS = ("scale", "mean_file", "crop_size", "mirror")  # once in a data layer's own parameters


def upgrade(net: Any, path: str) -> None:
    """Bring a NetParameter to Caffe's current syntax, in place. Raises ModelError for what Caffe refuses."""
    if net.layers:
        _from_v1(net, path)
    if net.input:
        _input_layer(net, path)
    for layer in net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for each in layer.param:  # once the way to say that its statistics are not learned by gradient
                each.lr_mult = each.decay_mult = 0


def _from_v1(net: Any, path: str) -> None:
    if net.layer:
        raise ModelError(f"{path}: mixes `layer {{ ... }}` with the older `layers {{ ... }}`; Caffe takes one of them")
    types = proto.V1LayerParameter.DESCRIPTOR.enum_types_by_name["LayerType"].values_by_number
    known = proto.LayerParameter.DESCRIPTOR.fields_by_name
    for old in net.layers:
        if old.HasField("layer"):
            raise ModelError(
                f"{path}: is in Caffe's first syntax (layers {{ layer {{ ... }} }}), of 2013; "
                "bring it up to date with Caffe's tool upgrade_net_proto_text (upgrade_net_proto_binary for weights)"
            )
        new = net.layer.add()
        for field, value in old.ListFields():
            if field.name == "type":
                name = types[value].name
                new.type = _TYPES.get(name, name.title().replace("_", ""))
            elif field.name in _PER_BLOB:
                while len(new.param) < len(value):
                    new.param.add()
                for i, each in enumerate(value):
                    setattr(new.param[i], _PER_BLOB[field.name], each)
            elif known[field.name].message_type is None:
                target = getattr(new, field.name)
                target.extend(value) if hasattr(target, "extend") else setattr(new, field.name, value)
            else:
                getattr(new, field.name).MergeFrom(value)
        for own in (new.data_param, new.image_data_param, new.window_data_param):
            for key in _TRANSFORMS:
                if own.HasField(key):
                    setattr(new.transform_param, key, getattr(own, key))
                    own.ClearField(key)
    del net.layers[:]


def _input_layer(net: Any, path: str) -> None:
    """The fields input, input_dim and input_shape as an Input layer. Without a shape it is one that must be told."""
    shapes = [list(shape.dim) for shape in net.input_shape]
    shapes = shapes or [list(net.input_dim[i : i + 4]) for i in range(0, len(net.input_dim), 4)]
    if shapes and (len(shapes) != len(net.input) or (not net.input_shape and len(net.input_dim) % 4)):
        raise ModelError(
            f"{path}: has {len(net.input)} `input` and sizes for {len(shapes)}; input_shape {{ dim: ... }} stands once "
            "for each, input_dim four times"
        )
    rest = list(net.layer)
    del net.layer[:]
    layer = net.layer.add(name="input", type="Input", top=net.input)
    for shape in shapes:
        layer.input_param.shape.add(dim=shape)
    net.layer.extend(rest)
    for field in ("input", "input_dim", "input_shape"):
        net.ClearField(field)
