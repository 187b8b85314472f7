"""Every layer of the vocabulary, and networks with random windows: all frameworks that can say one compute it alike."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from helpers.exported import Array, Frameworks, Step, network
from multiseg.errors import ModelError
from multiseg.topology import Topology

ALL = {"caffe", "tensorflow", "torch"}
NOT_CAFFE, ONLY_TORCH = ALL - {"caffe"}, {"torch"}


def images(topology: Topology) -> Array:
    draw = np.random.default_rng(3)
    return draw.standard_normal((2, *topology.input_shape)).astype(np.float32)


def outputs(frameworks: Frameworks, topology: Topology, folder: Path) -> dict[str, Array]:
    """By the names of the frameworks that can say it."""
    made = {}
    for backend in sorted(ALL):
        try:
            made[backend] = frameworks.outputs(backend, topology, folder, images(topology))
        except ModelError as error:
            assert "cannot express it exactly; layer 'l" in str(error), error
    return made


def check_alike(made: dict[str, Array], expected: Array | None = None) -> None:
    # each is a few sums of at most some hundred float32 products, near 1
    first = next(iter(made.values())) if expected is None else expected
    for backend, output in made.items():
        assert output.shape == first.shape, backend
        assert np.abs(output - first).max() <= 3e-6 * max(np.abs(first).max(), 1), backend


def pool(kind: str = "MaxPool", kernel: int = 3, stride: int = 2, pads: Any = 0, up: bool = False, **more: Any) -> Step:
    padding = {"auto_pad": "SAME_UPPER"} if pads == "same" else {"pads": [pads] * 4 if isinstance(pads, int) else pads}
    return kind, {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "ceil_mode": up, **padding, **more}


def conv(kind: str = "Conv", kernel: int = 3, **more: Any) -> Step:
    return kind, {"num_output": 4, "kernel_shape": [kernel] * 2, **more}


def unpooled(to: Any, **window: Any) -> list[Step]:
    """A pooling whose indices a MaxUnpool reads."""
    kind, parameters = pool(**window)
    return [(kind, {**parameters, "indices": True}, None, ["a", "b"]), ("Tanh", {}), ("MaxUnpool", to, ["l1", "b"])]


def two(kind: str, **parameters: Any) -> list[Step]:
    """A layer of two inputs, both positive."""
    return [("Softplus", {}), ("Exp", {}, ["first"]), (kind, parameters, ["l0", "l1"])]


SAME = {"auto_pad": "SAME_UPPER"}
# layers, and the frameworks that can say them
CASES: dict[str, tuple[list[Step], set[str]]] = {
    "conv": ([conv()], ALL),
    "conv-strided-padded": ([conv(strides=[2, 1], pads=[1, 2, 1, 2])], ALL),
    "conv-same": ([conv(**SAME)], ALL),
    "conv-same-strided": ([conv(strides=[2, 2], **SAME)], NOT_CAFFE),
    "conv-unequal-pads": ([conv(pads=[0, 1, 1, 2])], NOT_CAFFE),
    "conv-groups-dilated": ([conv(group=2, dilations=[2, 1], pads=[2, 1, 2, 1], bias_term=False)], ALL),
    "conv-depthwise": ([conv(group=4)], ALL),
    "pad-conv": ([("Pad", {"pads": [1, 2, 1, 2]}), conv()], ALL),
    "pad-conv-padded": ([("Pad", {"pads": [1, 0, 0, 1]}), conv(pads=[0, 1, 1, 0])], ALL),
    "deconv": ([conv("ConvTranspose", strides=[2, 3])], ALL),
    "deconv-padded": ([conv("ConvTranspose", 4, strides=[2, 2], pads=[1] * 4)], ALL),
    "deconv-unequal-pads": ([conv("ConvTranspose", strides=[2, 2], pads=[0, 1, 2, 1])], ALL),
    "deconv-output-padding": ([conv("ConvTranspose", strides=[2, 2], pads=[1] * 4, output_padding=[1, 1])], ALL),
    "deconv-more-beyond": ([conv("ConvTranspose", strides=[2, 2], output_padding=[1, 0])], NOT_CAFFE),
    "deconv-same": ([conv("ConvTranspose", strides=[2, 2], **SAME)], ALL),
    "deconv-same-gaps": ([conv("ConvTranspose", 2, strides=[3, 3], **SAME)], NOT_CAFFE),
    "deconv-groups": ([conv("ConvTranspose", 4, strides=[2, 2], pads=[1] * 4, group=2, bias_term=False)], ALL),
    "deconv-dilated": ([conv("ConvTranspose", dilations=[2, 2])], {"caffe", "torch"}),
    "max-pool": ([pool()], ALL),
    "max-pool-up": ([pool(up=True)], ALL),
    "max-pool-padded": ([pool(pads=1)], ALL),
    "max-pool-padded-up": ([pool(pads=1, up=True)], ALL),
    "max-pool-clipped": ([pool(kernel=2, pads=1, up=True)], ALL),
    "max-pool-same": ([pool(pads="same")], ALL),
    "max-pool-in-place": ([pool(stride=1, pads=1)], ALL),
    "max-pool-unequal-pads": ([pool(pads=[1, 0, 0, 1])], NOT_CAFFE),
    "max-pool-dilated": ([pool(kernel=2, stride=1, dilations=[2, 2])], ONLY_TORCH),
    "average": ([pool("AveragePool")], ALL),
    "average-up": ([pool("AveragePool", up=True)], ALL),
    "average-padded": ([pool("AveragePool", pads=1)], NOT_CAFFE),
    "average-padded-counted": ([pool("AveragePool", pads=1, count_include_pad=True)], ALL),
    "average-padded-counted-up": ([pool("AveragePool", pads=1, up=True, count_include_pad=True)], ALL),
    "average-padded-up": ([pool("AveragePool", kernel=2, pads=1, up=True)], NOT_CAFFE),
    "average-same": ([pool("AveragePool", stride=1, pads="same")], NOT_CAFFE),
    "average-unequal-pads": ([pool("AveragePool", pads=[1, 0, 0, 1], count_include_pad=True)], NOT_CAFFE),
    "global-pools": ([("GlobalMaxPool", {}), ("GlobalAveragePool", {}, ["first"]), ("Sum", {}, ["l0", "l1"])], ALL),
    "gemm": ([("Flatten", {}), ("Gemm", {"num_output": 6}), ("Relu", {}), ("Gemm", {"num_output": 3})], ALL),
    "gemm-after-pool": ([("GlobalAveragePool", {}), ("Squeeze", {}), ("Gemm", {"num_output": 6})], ALL),
    "gemm-to-image": ([("Flatten", {}), ("Gemm", {"num_output": 12}), ("Reshape", {"shape": [3, 2, 2]}), conv(kernel=1)], ALL),
    "batch-norm": ([("BatchNormalization", {"epsilon": 1e-3})], ALL),
    "batch-norm-plain": ([("BatchNormalization", {"epsilon": 1e-5, "affine": False})], ALL),
    "batch-norm-bias-alone": ([("BatchNormalization", {"affine": "bias"})], NOT_CAFFE),
    "batch-norm-weight-alone": ([("BatchNormalization", {"affine": "weight"})], NOT_CAFFE),
    "batch-norm-bias-by-batch": (
        [("BatchNormalization", {"affine": "bias", "prediction_statistics": "batch"})], NOT_CAFFE
    ),
    "batch-norm-by-batch": ([("BatchNormalization", {"prediction_statistics": "batch"})], ALL),
    "batch-norm-frozen": ([("BatchNormalization", {"training_statistics": "stored", "affine": False})], ALL),
    "batch-norm-momentum": ([("BatchNormalization", {"momentum": 0.2})], ALL),
    "batch-norm-cumulative": ([("BatchNormalization", {"momentum": "cumulative"})], ONLY_TORCH),
    "batch-norm-vector": ([("Flatten", {}), ("Gemm", {"num_output": 6}), ("BatchNormalization", {})], ALL),
    "scale": ([("Scale", {"bias_term": True})], ALL),
    "prelu-shared": ([("PRelu", {})], ALL),
    "prelu": ([("PRelu", {"num_parameters": 4})], ALL),
    "lrn": ([("LRN", {"size": 3, "alpha": 0.5, "beta": 0.75, "bias": 2.0})], ALL),
    "lrn-within": ([("LRN", {"size": 5, "alpha": 0.5, "beta": 0.6, "within_channel": True})], ALL),
    "lrn-within-bias": ([("LRN", {"size": 3, "alpha": 0.5, "bias": 2.0, "within_channel": True})], NOT_CAFFE),
    "dropout-channels": ([("Dropout", {"ratio": 0.3, "channelwise": True})], ALL),
    "dropout": ([("Dropout", {"ratio": 0.3})], ALL),
    "dropout-channels-vector": ([("Flatten", {}), ("Dropout", {"ratio": 0.3, "channelwise": True})], ALL),
    "leaky-relu": ([("LeakyRelu", {"alpha": 0.3})], ALL),
    "elu": ([("Elu", {}), ("Elu", {"alpha": 0.7})], ALL),
    "swish": ([("Swish", {})], ALL),
    "swish-alpha": ([("Mul", {"value": 8.0}), ("Swish", {"alpha": 1.5})], ALL),
    "thresholded": ([("ThresholdedRelu", {"alpha": 0.3})], NOT_CAFFE),
    "thresholded-value": ([("ThresholdedRelu", {"alpha": 0.0, "value": 1e-6})], ALL),
    "thresholded-both": ([("ThresholdedRelu", {"alpha": 0.2, "value": -0.5})], NOT_CAFFE),
    "clip": ([("Clip", {"min": -0.5, "max": 0.5})], ALL),
    "clip-6": ([("Mul", {"value": 8.0}), ("Clip", {"min": 0.0, "max": 6.0})], ALL),
    "clip-low": ([("Clip", {"min": -0.5})], ALL),
    "clip-high": ([("Clip", {"max": 0.5})], ALL),
    "softmax": ([("Softmax", {"axis": 1})], ALL),
    "softmax-width": ([("Softmax", {"axis": -1})], ALL),
    "softmax-vector": ([("Flatten", {}), ("Gemm", {"num_output": 6}), ("Softmax", {})], ALL),
    "log-softmax": ([("LogSoftmax", {"axis": 1})], NOT_CAFFE),
    "sum": (two("Sum", coefficients=[2.0, -1.0]), ALL),
    "plain-sum": (two("Sum"), ALL),
    "add": (two("Add"), ALL),
    "sub": (two("Sub"), ALL),
    "mul": (two("Mul"), ALL),
    "mul-channels": ([("GlobalAveragePool", {}, ["first"]), ("Sigmoid", {}), ("Mul", {}, ["first", "l1"])], ALL),
    "div": (two("Div"), ALL),
    "max": (two("Max"), ALL),
    "concat": (two("Concat", axis=1), ALL),
    "concat-width": (two("Concat", axis=-1), ALL),
    "constants": ([("Add", {"value": 0.25}), ("Mul", {"value": -2.0}), ("Sub", {"value": 0.5}), ("Div", {"value": 3.0})], ALL),
    "split": ([("Split", {"axis": 1, "split": [1, 3]}, None, ["a", "b"]), ("Concat", {"axis": 1}, ["b", "a"])], ALL),
    "slice": ([("Slice", {"axes": [2, 3], "starts": [1, 0], "ends": [-1, 4]})], ALL),
    "slice-channels": ([("Slice", {"axes": [1], "starts": [2], "ends": [1000]})], ALL),
    "crop": ([pool(stride=1), ("Crop", {"axis": 2, "offset": [1]}, ["first", "l0"])], ALL),
    "crop-offsets": ([pool(stride=1), ("Crop", {"axis": 2, "offset": [0, 2]}, ["first", "l0"])], ALL),
    "reshape": ([("Reshape", {"shape": [0, -1, 9]})], ALL),
    "transpose": ([("Transpose", {"perm": [0, 2, 3, 1]})], NOT_CAFFE),
    # in NHWC the change to NCHW
    "transpose-to-nchw": ([("Transpose", {"perm": [0, 3, 1, 2]})], ONLY_TORCH),
    "pad-value": ([("Pad", {"pads": [1, 2, 3, 4], "value": 0.5})], NOT_CAFFE),
    "pad-reflect": ([("Pad", {"pads": [1, 2, 3, 4], "mode": "reflect"})], NOT_CAFFE),
    "resize-nearest": ([("Resize", {"mode": "nearest", "scales": [2.0, 3.0], "coordinates": "asymmetric"})], ALL),
    "resize-nearest-size": ([("Resize", {"mode": "nearest", "sizes": [13, 7], "coordinates": "half_pixel"})], NOT_CAFFE),
    "resize-linear": ([("Resize", {"mode": "linear", "scales": [2.0, 2.0]})], NOT_CAFFE),
    "resize-corners": ([("Resize", {"mode": "linear", "sizes": [5, 15], "coordinates": "align_corners"})], ALL),
    "resize-zoomed": ([("Resize", {"mode": "linear", "sizes": [17, 19], "coordinates": "align_corners"})], ALL),
    "max-unpool": (unpooled({"scales": [2.0, 2.0]}, kernel=2), ALL),
    "max-unpool-size": (unpooled({"sizes": [9, 10]}, kernel=2, up=True), ALL),
    "max-unpool-overlapping": (unpooled({"sizes": [9, 10]}, kernel=3), {"caffe", "torch"}),
    "mean": ([("ReduceMean", {"axes": [2, 3], "keepdims": True})], ALL),
    "mean-vector": ([("ReduceMean", {"axes": [2, 3], "keepdims": False}), ("Gemm", {"num_output": 3})], ALL),
    "sum-channels": ([("ReduceSum", {"axes": [1], "keepdims": True})], NOT_CAFFE),
    "sum-width": ([("ReduceSum", {"axes": [3]}), ("Reshape", {"shape": [4, 3, 3]})], ALL),
    "mean-height": ([("ReduceMean", {"axes": [2]}), ("Reshape", {"shape": [4, 5, 2]})], NOT_CAFFE),
    "sum-channels-without-axis": (
        [("ReduceSum", {"axes": [1]}), ("Tanh", {}), ("Elu", {"alpha": 0.7}), ("Reshape", {"shape": [2, 5, 9]})], NOT_CAFFE,
    ),
    "mean-one-channel-without-axis": (
        [("Conv", {"num_output": 1, "kernel_shape": [1, 1]}), ("ReduceMean", {"axes": [1]}), ("Relu", {}),
         ("Elu", {"alpha": 0.7}), ("Reshape", {"shape": [2, 5, 9]})], NOT_CAFFE,
    ),
}  # fmt: skip


def drawn(seed: int) -> Topology | None:
    """A convolution or pooling with random windows over an image of a random size; None where they do not fit."""
    draw = random.Random(seed)
    kind = draw.choice(["MaxPool", "AveragePool", "Conv", "ConvTranspose"])
    kernel, strides = ([draw.randint(1, most), draw.randint(1, most)] for most in (4, 3))
    half = [draw.randint(0, size - 1) for size in kernel]
    pads = draw.choice([half * 2, half * 2, [draw.randint(0, kernel[i % 2] - 1) for i in range(4)]])
    said: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    said |= SAME if draw.random() < 0.25 else {"pads": pads}
    if kind.endswith("Pool"):
        said["ceil_mode"] = "pads" in said and draw.random() < 0.5
    else:
        said |= {"num_output": 4, "group": draw.choice([1, 2]), "bias_term": draw.random() < 0.5}
    if kind == "AveragePool":
        said["count_include_pad"] = draw.random() < 0.5
    if kind == "Conv":
        said["dilations"] = [draw.randint(1, 2), draw.randint(1, 2)]
    if kind == "ConvTranspose" and "pads" in said:
        said["output_padding"] = [draw.randint(0, size - 1) for size in strides]
    try:
        return network((kind, said), shape=(4, draw.randint(4, 9), draw.randint(4, 9)))
    except ModelError:
        return None
