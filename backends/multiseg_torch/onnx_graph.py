"""Add preprocessing of images before, and the choice of a class after, the network of an ONNX file."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from multiseg.errors import ModelError

IMAGE, CLASSES = "image", "classes"  # names of the new input and output


def extended(content: bytes, title: str, image_type: str | None, argmax: bool) -> bytes:
    """Return an ONNX file that takes images as they are read and, with ``argmax``, returns class indices.

    ``content`` is a file of a network with one input (N, C, H, W) and one output, whose metadata state ``channel_order``, and
    ``mean`` and ``std`` if there are such. With ``image_type`` (uint8 or float32) the input is ``image`` of this type,
    (N, C, H, W), colours as R, G, B, values as in the file; subtraction of the mean and division by the standard deviation are in
    the graph. With ``argmax`` the output is ``classes``, int64 (N, H, W), or (N,) for a vector: the index of the largest value,
    the first of equal ones. Raises ModelError for an output of one channel, which scores no classes.
    """
    import onnx

    proto = onnx.load_from_string(content)
    if image_type is not None:
        _take_images(proto, image_type)
    if argmax:
        _return_classes(proto, title)
    onnx.checker.check_model(proto, full_check=True)
    result: bytes = proto.SerializeToString()
    return result


def _take_images(proto: Any, image_type: str) -> None:
    from onnx import TensorProto, helper, numpy_helper

    graph, metadata = proto.graph, {entry.key: entry.value for entry in proto.metadata_props}
    old = graph.input[0]
    dimensions = [dim.dim_param or dim.dim_value for dim in old.type.tensor_type.shape.dim]
    type_code = TensorProto.UINT8 if image_type == "uint8" else TensorProto.FLOAT
    steps: list[tuple[str, Any, dict[str, Any]]] = []
    if image_type == "uint8":
        steps.append(("Cast", None, {"to": TensorProto.FLOAT}))
    if metadata.get("multiseg.channel_order") == "BGR" and dimensions[1] == 3:
        steps.append(("Gather", np.array([2, 1, 0], np.int64), {"axis": 1}))
    for key, operation in (("multiseg.mean", "Sub"), ("multiseg.std", "Div")):
        if key in metadata:
            steps.append((operation, np.array(json.loads(metadata[key]), np.float32), {}))
    if not steps:
        steps.append(("Identity", None, {}))
    nodes, value = [], IMAGE
    for number, (operation, constant, attributes) in enumerate(steps):
        result = old.name if number == len(steps) - 1 else f"{IMAGE}_{operation.lower()}"
        inputs = [value]
        if constant is not None:
            inputs.append(f"{IMAGE}_{operation.lower()}_by")
            graph.initializer.append(numpy_helper.from_array(constant, inputs[1]))
        nodes.append(
            helper.make_node(operation, inputs, [result], name=f"{IMAGE}_{operation.lower()}_node", **attributes)
        )
        value = result
    rest = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *rest])
    graph.input.append(helper.make_tensor_value_info(IMAGE, type_code, dimensions))
    kept = {key: text for key, text in metadata.items() if key not in ("multiseg.mean", "multiseg.std")}
    del proto.metadata_props[:]
    for key, text in {**kept, "multiseg.channel_order": "RGB", "multiseg.preprocessing": "in the graph"}.items():
        proto.metadata_props.add(key=key, value=text)


def _return_classes(proto: Any, title: str) -> None:
    from onnx import TensorProto, helper

    graph = proto.graph
    old = graph.output[0]
    dimensions = [dim.dim_param or dim.dim_value for dim in old.type.tensor_type.shape.dim]
    if len(dimensions) < 2 or dimensions[1] == 1:
        raise ModelError(f"{title}: its output has one channel, which scores no classes; export it without argmax")
    graph.node.append(helper.make_node("ArgMax", [old.name], [CLASSES], name=f"{CLASSES}_node", axis=1, keepdims=0))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(CLASSES, TensorProto.INT64, [dimensions[0], *dimensions[2:]]))
    proto.metadata_props.add(key="multiseg.output", value="class indices")
