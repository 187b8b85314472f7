"""Map each type of TensorFlow operation to the rule that converts it to a layer, see multiseg_tensorflow.describing.walk."""

from __future__ import annotations

from multiseg_tensorflow.describing.rules import arithmetic, axes, convolution, indices, normalisation, vectors
from multiseg_tensorflow.describing.walk import Rule

PASSED_ON = (
    "Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "EnsureShape", "Print", "Cast",
)  # fmt: skip

RULES: dict[str, Rule] = {
    "Conv2D": convolution.convolution,
    "DepthwiseConv2dNative": convolution.convolution,
    "Conv2DBackpropInput": convolution.transposed_convolution,
    "BatchToSpaceND": convolution.from_blocks,
    "MatMul": vectors.dense,
    "BiasAdd": arithmetic.bias,
    "MaxPool": convolution.pool("MaxPool"),
    "MaxPoolWithArgmax": indices.pool,
    "FloorDiv": indices.plane_index,
    "ScatterNd": indices.unpool,
    "AvgPool": convolution.pool("AveragePool"),
    **dict.fromkeys(("Mean", "Max", "Sum"), axes.reduce),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), normalisation.batch_norm),
    "LRN": normalisation.lrn,
    **{
        name: arithmetic.elementwise(name)
        for name in ("Relu", "Sigmoid", "Tanh", "Softplus", "Abs", "Exp", "Log", "Neg", "Sqrt")
    },
    "Relu6": arithmetic.elementwise("Clip", min=0.0, max=6.0),
    "Elu": arithmetic.elementwise("Elu", alpha=1.0),
    "Square": arithmetic.elementwise("Pow", exponent=2.0),
    "LeakyRelu": arithmetic.leaky,
    "SelectV2": arithmetic.select,
    "Softmax": arithmetic.last_axis("Softmax"),
    "LogSoftmax": arithmetic.last_axis("LogSoftmax"),
    "ConcatV2": axes.concat,
    "Split": axes.split,
    "SplitV": axes.split,
    **dict.fromkeys(("Slice", "StridedSlice"), axes.slice),
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), axes.pad),
    **dict.fromkeys(("Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "Maximum", "Minimum", "Pow"), arithmetic.binary),
    "AddN": arithmetic.add_n,
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims"), vectors.reshape),
    "Transpose": axes.transpose,
    "ResizeBilinear": axes.resize("linear"),
    "ResizeNearestNeighbor": axes.resize("nearest"),
    **dict.fromkeys(PASSED_ON, arithmetic.pass_on),
}
