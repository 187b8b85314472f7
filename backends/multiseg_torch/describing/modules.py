"""Map PyTorch's modules to the vocabulary of multiseg.topology."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from multiseg_torch.describing.functions import FUNCTIONS, Call, Entry, pad_rule
from multiseg_torch.torch7 import layers


def _module(name: str, *attributes: str, **renamed: str) -> Callable[[Any, Call], Entry]:
    """Return a rule for a module: its function's rule, with the module's attributes as arguments."""

    def rule(module: Any, call: Call) -> Entry:
        arguments = {attribute: getattr(module, attribute) for attribute in attributes}
        arguments |= {argument: getattr(module, attribute) for argument, attribute in renamed.items()}
        return FUNCTIONS[name][1](Call({**call.arguments, **arguments}, call.read, call.made))

    return rule


def _if_zeros(rule: Callable[[Any, Call], Entry]) -> Callable[[Any, Call], Entry]:
    return lambda module, call: rule(module, call) if module.padding_mode == "zeros" else None


def _around(mode: str) -> Callable[[Any, Call], Entry]:
    return lambda module, call: pad_rule(
        Call({"pad": module.padding, "mode": mode, "value": getattr(module, "value", 0)}, call.read, call.made)
    )


_batch_norm = _module("batch_norm", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
# Rules by class; they do not apply to subclasses that override forward.
MODULES: dict[type[nn.Module], Callable[[Any, Call], Entry]] = {
    nn.Conv2d: _if_zeros(_module("conv2d", "weight", "bias", "stride", "padding", "dilation", "groups")),
    nn.ConvTranspose2d: _module(
        "conv_transpose2d", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"
    ),
    nn.Linear: _module("linear", "weight", "bias"),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.PReLU: _module("prelu", "weight"),
    nn.MaxPool2d: _module("max_pool2d", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    nn.MaxUnpool2d: _module("max_unpool2d", "kernel_size", "stride", "padding"),
    nn.AvgPool2d: _module(
        "avg_pool2d", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"
    ),
    nn.AdaptiveAvgPool2d: _module("adaptive_avg_pool2d"),
    nn.AdaptiveMaxPool2d: _module("adaptive_max_pool2d"),
    nn.LocalResponseNorm: _module("local_response_norm", "size", "alpha", "beta", "k"),
    nn.Dropout: _module("dropout", "p"),
    nn.Dropout2d: _module("dropout2d", "p"),
    nn.ReLU: _module("relu"),
    nn.ReLU6: _module("relu6"),
    nn.LeakyReLU: _module("leaky_relu", "negative_slope"),
    nn.ELU: _module("elu", "alpha"),
    nn.Hardtanh: _module("hardtanh", "min_val", "max_val"),
    nn.Threshold: _module("threshold", "threshold", "value"),
    nn.Sigmoid: _module("sigmoid"),
    nn.Tanh: _module("tanh"),
    nn.SiLU: _module("silu"),
    nn.Softplus: _module("softplus", "beta"),
    nn.Softmax: _module("softmax", "dim"),
    nn.LogSoftmax: _module("log_softmax", "dim"),
    nn.Identity: lambda module, call: ("Identity", {}),
    nn.Flatten: _module("flatten"),
    nn.Unflatten: _module("unflatten"),
    nn.ZeroPad2d: _around("constant"),
    nn.ConstantPad2d: _around("constant"),
    nn.ReflectionPad2d: _around("reflect"),
    nn.ReplicationPad2d: _around("replicate"),
    nn.Upsample: _module("interpolate", "size", "scale_factor", "mode", "align_corners"),
    nn.UpsamplingNearest2d: _module("interpolate", "size", "scale_factor", "mode"),
    nn.UpsamplingBilinear2d: _module("interpolate", "size", "scale_factor", "mode", "align_corners"),
    layers.Elementwise: lambda module, call: (module.operation, {}),
}


def reason_of(module: nn.Module) -> str | None:
    """Return the option that keeps a module with a rule out of the vocabulary; None if it is another one."""
    mode = getattr(module, "padding_mode", "zeros")
    if mode != "zeros":
        return f"has padding_mode={mode!r}; a layer that pads before it, such as nn.ReflectionPad2d, can be written"
    own = {name for name, _ in module.named_parameters(recurse=False)}
    sources = [name for name, _ in module.named_parameters() if name not in ("weight", "bias")]
    if isinstance(getattr(module, "weight", None), Tensor) and "weight" not in own and sources:
        return (
            f"computes its weight from {' and '.join(sources)}, as weight_norm and spectral_norm do; a module with the plain "
            "weight can be written"
        )
    return None


def of_module(module: nn.Module) -> Callable[[Any, Call], Entry] | None:
    """Return the rule of a module's class, or of the base class whose forward it inherits; None if there is none."""
    for cls, rule in MODULES.items():
        if isinstance(module, cls) and type(module).forward is cls.forward:
            return rule
    return None
