"""Parts of a PyTorch source file as text."""

from __future__ import annotations

from collections.abc import Callable

from multiseg.topology import Layer
from multiseg.topology.writing import (
    number,
    pair,
    said,
)  # fmt: skip

# names not allowed for attributes of the module and variables of forward
RESERVED = (
    "x", "self", "torch", "nn", "F", "T_destination", "add_module", "apply", "bfloat16", "buffers",
    "call_super_init", "children", "compile", "cpu", "cuda", "double", "dump_patches", "eval", "extra_repr",
    "float", "forward", "get_buffer", "get_extra_state", "get_parameter", "get_submodule", "half", "ipu",
    "load_state_dict", "modules", "mtia", "named_buffers", "named_children", "named_modules", "named_parameters",
    "parameters", "register_buffer", "register_module", "register_parameter", "register_backward_hook",
    "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
    "register_full_backward_pre_hook", "register_load_state_dict_post_hook", "register_load_state_dict_pre_hook",
    "register_state_dict_post_hook", "register_state_dict_pre_hook", "requires_grad_", "set_extra_state",
    "set_submodule", "share_memory", "state_dict", "to", "to_empty", "train", "training", "type", "xpu",
    "zero_grad",
)  # fmt: skip


SCALE = '''

class Scale(nn.Module):
    """A factor, and perhaps a summand, for each channel."""

    def __init__(self, channels, bias=False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x):
        shape = (1, -1) + (1,) * (x.ndim - 2)
        if self.bias is None:
            return x * self.weight.reshape(shape)
        return torch.addcmul(self.bias.reshape(shape), x, self.weight.reshape(shape))
'''


FROZEN_NORM = '''

class Frozen{name}(nn.{name}):
    """Batch normalisation by the stored statistics, also in training."""

    def train(self, mode=True):
        return super().train(False)
'''


BATCH_NORM = '''

class ByBatch{name}(nn.{name}):
    """Batch normalisation by the statistics of the batch, also in prediction."""

    def forward(self, x):
        mean, variance = (self.running_mean, self.running_var) if self.training else (None, None)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, True, self.momentum, self.eps)
'''


LOG_LOSS = '''

class LogLoss(nn.Module):
    """Mean -log of the right class's probability; labels are class numbers from 0, one for each image or pixel."""

    def forward(self, output, labels):
        output = output.movedim(1, -1).reshape(-1, output.shape[1])
        return F.nll_loss(output.clamp_min(1e-38).log(), labels.long().reshape(-1))
'''
ON_EACH: dict[str, Callable[[Layer], str]] = {
    "Relu": lambda layer: "nn.ReLU()",
    "LeakyRelu": lambda layer: f"nn.LeakyReLU({number(said(layer, 'alpha'))})",
    "Elu": lambda layer: f"nn.ELU({number(said(layer, 'alpha'))})",
    "PRelu": lambda layer: f"nn.PReLU({said(layer, 'num_parameters')})",
    "ThresholdedRelu": lambda layer: f"nn.Threshold({number(said(layer, 'alpha'))}, 0.0)",
    "Sigmoid": lambda layer: "nn.Sigmoid()",
    "Tanh": lambda layer: "nn.Tanh()",
    "Softplus": lambda layer: "nn.Softplus()",
    "Dropout": lambda layer: f"nn.Dropout({number(said(layer, 'ratio'))})",
    "Flatten": lambda layer: "nn.Flatten()",
    "GlobalAveragePool": lambda layer: "nn.AdaptiveAvgPool2d(1)",
    "GlobalMaxPool": lambda layer: "nn.AdaptiveMaxPool2d(1)",
}
FUNCTIONS = {"Abs": "{}.abs()", "Exp": "{}.exp()", "Log": "{}.log()", "Neg": "-{}", "Sqrt": "{}.sqrt()"}


def windows(layer: Layer, pads: list[int]) -> str:
    """Return the arguments kernel size, strides and dilations (unless 1) and padding (unless 0)."""
    arguments = pair(layer.parameters["kernel_shape"])
    for key, keyword in (("strides", "stride"), ("dilations", "dilation")):
        values = said(layer, key)
        arguments += f", {keyword}={pair(values)}" if max(values) > 1 else ""
    return arguments + padding(pads)


def padding(pads: list[int]) -> str:
    return f", padding={pair(pads)}" if any(pads) else ""


def zero_pad(pads: list[int]) -> str:
    top, left, bottom, right = pads
    return f"nn.ZeroPad2d(({left}, {right}, {top}, {bottom}))"


def constant_pad(pads: list[int], value: str) -> str:
    top, left, bottom, right = pads
    return f"nn.ConstantPad2d(({left}, {right}, {top}, {bottom}), {value})"
