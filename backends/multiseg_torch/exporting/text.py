"""Parts of a PyTorch source file as text."""

from __future__ import annotations

from collections.abc import Callable

from multiseg.topology import Layer
from multiseg.topology.writing import (
    number,
    pair,
    parameter,
)  # fmt: skip

# names not allowed for attributes of the module and variables of forward
RESERVED = (
    "x", "scores", "self", "torch", "nn", "F", "T_destination", "add_module", "apply", "bfloat16", "buffers",
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


WITHOUT = '''

def without(norm, part):
    """Return a batch normalisation without its weight, or without its bias."""
    norm.register_parameter(part, None)
    return norm
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


BILINEAR = '''

def bilinear(weight):
    """Set every kernel to that of bilinear upsampling."""
    size = weight.shape[-1]
    factor = (size + 1) // 2
    line = 1 - (torch.arange(size) / factor - (size - 1) / (2 * factor)).abs()
    with torch.no_grad():
        weight.copy_((line[:, None] * line).expand_as(weight))
'''


# Losses that divide as Caffe does. ``output.scores`` are the scores that a network attaches to its output, if its output are
# their probabilities: the loss of probabilities is infinite, and has no gradient, where a confident prediction is wrong.
CLASS_LOSS = '''

class ClassLoss(nn.CrossEntropyLoss):
    """Cross entropy of scores and class indices, one for each image or pixel.

    The sum over the labels that are not ignored, divided by their number (valid), the number of all labels (full), the number
    of images (batch_size), or 1 (none). With a matrix H, the loss of a label l is the sum over k of -H[l][k] log p[k];
    weighted divides by the sum of the labels' H[l][l].
    """

    def __init__(self, normalization="valid", ignore_index=-100, weight=1.0, label_scale=1.0, matrix=None):
        super().__init__(ignore_index=ignore_index)
        self.normalization, self.factor, self.label_scale, self.matrix = normalization, weight, label_scale, matrix

    def forward(self, output, labels):
        labels = (labels * self.label_scale).long()
        scores, ignored = SCORES, self.ignore_index
        if self.matrix is None:
            losses = F.cross_entropy(scores, labels, reduction="sum", ignore_index=ignored)
        else:
            matrix = torch.tensor(self.matrix).to(scores)
            logs = F.log_softmax(scores, 1)
            if self.normalization == "weighted":
                return self.factor * F.nll_loss(logs, labels, matrix.diagonal(), ignore_index=ignored)
            weighted = torch.einsum("lk,nk...->nl...", matrix, logs).contiguous()
            losses = F.nll_loss(weighted, labels, reduction="sum", ignore_index=ignored)
        counted = (labels != ignored).sum()
        divisor = {"valid": counted, "full": labels.numel(), "batch_size": len(labels), "none": 1}[self.normalization]
        return losses * self.factor / max(int(divisor), 1)
'''
SIGMOID_LOSS = '''

class SigmoidLoss(nn.BCEWithLogitsLoss):
    """Cross entropy of the sigmoid of scores and labels of 0 to 1, one for each score.

    The sum over the labels that are not ignored, divided by their number (valid), the number of all labels (full), the number
    of images (batch_size), or 1 (none).
    """

    of_output = OF_OUTPUT  # whether the output are the scores

    def __init__(self, normalization="valid", ignore=(), weight=1.0, label_scale=1.0):
        super().__init__()
        self.normalization, self.ignore, self.factor, self.label_scale = normalization, ignore, weight, label_scale

    def forward(self, output, labels):
        labels = labels.to(output.dtype) * self.label_scale
        counted = torch.ones_like(labels)
        for value in self.ignore:
            counted = counted * (labels.trunc() != value)
        losses = (F.binary_cross_entropy_with_logits(SCORES, labels, reduction="none") * counted).sum()
        divisor = {"valid": counted.sum(), "full": labels.numel(), "batch_size": len(labels), "none": 1}[self.normalization]
        return losses * self.factor / max(int(divisor), 1)
'''


ON_EACH: dict[str, Callable[[Layer], str]] = {
    "Relu": lambda layer: "nn.ReLU()",
    "LeakyRelu": lambda layer: f"nn.LeakyReLU({number(parameter(layer, 'alpha'))})",
    "Elu": lambda layer: f"nn.ELU({number(parameter(layer, 'alpha'))})",
    "PRelu": lambda layer: f"nn.PReLU({parameter(layer, 'num_parameters')})",
    "ThresholdedRelu": lambda layer: (
        f"nn.Threshold({number(parameter(layer, 'alpha'))}, {number(parameter(layer, 'value'))})"
    ),
    "Sigmoid": lambda layer: "nn.Sigmoid()",
    "Tanh": lambda layer: "nn.Tanh()",
    "Softplus": lambda layer: "nn.Softplus()",
    "Dropout": lambda layer: (
        f"nn.Dropout{'2d' if parameter(layer, 'channelwise') else ''}({number(parameter(layer, 'ratio'))})"
    ),
    "Flatten": lambda layer: "nn.Flatten()",
    "GlobalAveragePool": lambda layer: "nn.AdaptiveAvgPool2d(1)",
    "GlobalMaxPool": lambda layer: "nn.AdaptiveMaxPool2d(1)",
}
FUNCTIONS = {"Abs": "{}.abs()", "Exp": "{}.exp()", "Log": "{}.log()", "Neg": "-{}", "Sqrt": "{}.sqrt()"}


def windows(layer: Layer, pads: list[int]) -> str:
    """Return the arguments kernel size, strides and dilations (unless 1) and padding (unless 0)."""
    arguments = pair(layer.parameters["kernel_shape"])
    for key, keyword in (("strides", "stride"), ("dilations", "dilation")):
        values = parameter(layer, key)
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
