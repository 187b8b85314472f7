"""The vocabulary: one row for each layer type, from which everything else that lists types is derived.

Types and parameter names are ONNX's (https://onnx.ai/onnx/operators), for one image: shapes leave the batch out, axes
count it as ONNX does (1 is the channels). What ONNX reads off its weight inputs is among the parameters: ``num_output`` and
``bias_term`` (Caffe's names). Types of multiseg's own, where ONNX has no layer: ``Scale`` and ``Crop`` (Caffe's layers of
that name), and ``Add``, ``Sub``, ``Mul``, ``Div`` with a constant as ``value`` instead of a second input.

A new type needs a row here, its float64 rule in multiseg.reference.network, and reading and writing it in each backend;
tests check the reference and the table in docs/model-files.md against these rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multiseg.topology.layer import Layer, Shape
from multiseg.topology.vocabulary import canonical_forms as forms
from multiseg.topology.vocabulary import shapes
from multiseg.topology.vocabulary.canonical_forms import CanonicalForm
from multiseg.topology.vocabulary.layer_type import OPTIONAL, REQUIRED, LayerType

WINDOW: dict[str, Any] = {
    "kernel_shape": REQUIRED, "strides": (1, 1), "pads": (0, 0, 0, 0), "auto_pad": OPTIONAL, "dilations": (1, 1),
}  # fmt: skip
CONVOLUTION: dict[str, Any] = {"num_output": REQUIRED, **WINDOW, "group": 1, "bias_term": True}
OPERAND: dict[str, Any] = {"value": OPTIONAL}  # instead of a second input
REDUCED: dict[str, Any] = {"axes": REQUIRED, "keepdims": False}
SLOPES = (0.0, 0.01, 0.1, 0.2, 0.3, 1.0)  # defaults of slopes below zero
EPSILONS = (1e-5, 1e-3, 2e-5, 1e-4, 1e-2, 1e-6, 1e-8, 1e-12, 0.0)

VOCABULARY: dict[str, LayerType] = {
    # convolutions and dense layers
    "Conv": LayerType(
        "convolution", shapes.convolution, CONVOLUTION, reach="window", channels="mixed", canonical=forms.convolution
    ),
    "ConvTranspose": LayerType(
        "upsampling", shapes.deconvolution, {**CONVOLUTION, "output_padding": (0, 0)}, reach="transposed",
        channels="mixed", canonical=forms.convolution,
    ),
    "Gemm": LayerType(
        "convolution", shapes.gemm, {"num_output": REQUIRED, "bias_term": True}, channels="mixed",
        words={"num_output": "outputs"},
    ),
    "Resize": LayerType(
        "upsampling", shapes.resize,
        {"mode": REQUIRED, "scales": OPTIONAL, "sizes": OPTIONAL, "coordinates": "half_pixel"},
        reach="scaled", canonical=forms.resize,
    ),
    "MaxUnpool": LayerType(
        "upsampling", shapes.unpool, {"scales": OPTIONAL, "sizes": OPTIONAL}, canonical=forms.unpool
    ),
    # poolings
    "MaxPool": LayerType(
        "pooling", shapes.pool, {**WINDOW, "ceil_mode": False, "indices": False}, reach="window", canonical=forms.pool
    ),
    "AveragePool": LayerType(
        "pooling", shapes.pool, {**WINDOW, "ceil_mode": False, "count_include_pad": False}, reach="window",
        canonical=forms.pool,
    ),
    "GlobalMaxPool": LayerType("pooling", shapes.global_pool, canonical=forms.global_pool),
    "GlobalAveragePool": LayerType("pooling", shapes.global_pool, canonical=forms.global_pool),
    # normalisation and dropout
    "BatchNormalization": LayerType(
        "normalisation", shapes.batch_norm,
        {
            "epsilon": 1e-5, "affine": True, "training_statistics": "batch", "prediction_statistics": "stored",
            "stored": True, "momentum": OPTIONAL,
        },
        reach="pixel", batch_statistics=True, canonical=forms.batch_norm, alternatives={"epsilon": EPSILONS},
    ),
    "Scale": LayerType("normalisation", shapes.scale, {"bias_term": False}, reach="pixel"),
    "LRN": LayerType(
        "normalisation",
        parameters={"size": REQUIRED, "alpha": 1e-4, "beta": 0.75, "bias": 1.0, "within_channel": False},
        reach="nearby", channels="neighbours", alternatives={"bias": (1.0, 2.0)},
    ),
    "Dropout": LayerType(
        "normalisation", parameters={"ratio": 0.5, "channelwise": False}, reach="pixel", stochastic=True,
        keeps_values=True,
    ),
    # functions of each element
    "Identity": LayerType("activation", reach="pixel", canonical=forms.identity, keeps_values=True),
    "Relu": LayerType("activation", reach="pixel", kinked=True),
    "LeakyRelu": LayerType(
        "activation", parameters={"alpha": 0.01}, reach="pixel", canonical=forms.rectifier, kinked=True,
        alternatives={"alpha": SLOPES},
    ),
    "PRelu": LayerType("activation", shapes.prelu, {"num_parameters": 1}, reach="pixel", kinked=True),
    "Elu": LayerType(
        "activation", parameters={"alpha": 1.0}, reach="pixel", kinked=True, alternatives={"alpha": SLOPES}
    ),
    "ThresholdedRelu": LayerType(
        "activation", parameters={"alpha": 1.0, "value": 0.0}, reach="pixel", canonical=forms.rectifier, kinked=True
    ),
    "Clip": LayerType(
        "activation", parameters={"min": OPTIONAL, "max": OPTIONAL}, reach="pixel", canonical=forms.clip
    ),
    "Swish": LayerType("activation", parameters={"alpha": 1.0}, reach="pixel", alternatives={"alpha": (1.0, 1.702)}),
    "Sigmoid": LayerType("activation", reach="pixel"),
    "Tanh": LayerType("activation", reach="pixel"),
    "Softplus": LayerType("activation", reach="pixel"),
    "Abs": LayerType("activation", reach="pixel"),
    "Exp": LayerType("activation", reach="pixel"),
    "Log": LayerType("activation", reach="pixel"),
    "Neg": LayerType("activation", reach="pixel", canonical=forms.negation),
    "Sqrt": LayerType("activation", reach="pixel", canonical=forms.square_root),
    "Pow": LayerType("activation", parameters={"exponent": REQUIRED}, reach="pixel", canonical=forms.power),
    "Softmax": LayerType("softmax", parameters={"axis": -1}, reach="axes", canonical=forms.softmax),
    "LogSoftmax": LayerType("softmax", parameters={"axis": -1}, reach="axes", canonical=forms.softmax),
    # several inputs of one shape, or one and a constant
    "Sum": LayerType(
        "joining", shapes.elementwise, {"coefficients": OPTIONAL}, reach="pixel", canonical=forms.elementwise,
        commutative=True,
    ),
    "Max": LayerType(
        "joining", shapes.elementwise, reach="pixel", canonical=forms.elementwise, commutative=True
    ),
    "Mul": LayerType(
        "joining", shapes.product, OPERAND, reach="pixel", canonical=forms.elementwise, commutative=True
    ),
    "Add": LayerType(
        "joining", shapes.elementwise, OPERAND, reach="pixel", canonical=forms.elementwise, commutative=True
    ),
    "Sub": LayerType("joining", shapes.elementwise, OPERAND, reach="pixel", canonical=forms.elementwise),
    "Div": LayerType("joining", shapes.elementwise, OPERAND, reach="pixel", canonical=forms.elementwise),
    "Concat": LayerType(
        "joining", shapes.concat, {"axis": REQUIRED}, reach="axes", channels="axes", canonical=forms.concat
    ),
    # parts, shapes and axes
    "Split": LayerType("shaping", shapes.split, {"axis": REQUIRED, "split": REQUIRED}, reach="axes", channels="axes"),
    "Slice": LayerType(
        "shaping", shapes.cut, {"axes": REQUIRED, "starts": REQUIRED, "ends": REQUIRED}, reach="axes",
        channels="axes", canonical=forms.cut,
    ),
    "Crop": LayerType(
        "shaping", shapes.crop, {"axis": REQUIRED, "offset": REQUIRED}, reach="nearby", canonical=forms.cut
    ),
    "Pad": LayerType(
        "shaping", shapes.pad, {"pads": REQUIRED, "mode": "constant", "value": 0.0}, reach="nearby", canonical=forms.pad
    ),
    "Flatten": LayerType("shaping", shapes.flatten, channels="reshaped", canonical=forms.reshape, keeps_values=True),
    "Reshape": LayerType(
        "shaping", shapes.reshape, {"shape": REQUIRED}, channels="reshaped", canonical=forms.reshape, keeps_values=True
    ),
    "Squeeze": LayerType(
        "shaping", shapes.squeeze, {"axes": OPTIONAL}, channels="reshaped", canonical=forms.reshape, keeps_values=True
    ),
    "Transpose": LayerType(
        "shaping", shapes.transpose, {"perm": REQUIRED}, channels="permuted", canonical=forms.transpose
    ),
    "ReduceMean": LayerType("shaping", shapes.reduce, REDUCED, channels="axes", canonical=forms.reduce),
    "ReduceSum": LayerType("shaping", shapes.reduce, REDUCED, channels="axes", canonical=forms.reduce),
}  # fmt: skip


def types(has: Callable[[LayerType], bool]) -> frozenset[str]:
    """Return the names of the types whose row has a property, as in ``types(lambda row: row.stochastic)``."""
    return frozenset(name for name, row in VOCABULARY.items() if has(row))


def infer(type: str, parameters: shapes.Parameters, inputs: list[Shape]) -> shapes.Inferred:
    """Return output shapes, weights and multiply-adds of a layer. Raises ShapeError; KeyError for an unknown type."""
    return VOCABULARY[type].infer(parameters, inputs)


def canonical_form(layer: Layer, inputs: list[Shape]) -> CanonicalForm:
    """Return type and parameters of a layer in canonical form, for these input shapes. A Split has none of its own."""
    return VOCABULARY[layer.type].canonical_form(layer, inputs)
