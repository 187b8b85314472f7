"""Losses of probabilities: whether a loss computes the sigmoid of the network's output, and which labels it takes."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from multiseg_torch import losses
from multiseg_torch.class_losses import ClassLoss

CROSS_ENTROPIES = (functional.binary_cross_entropy, functional.binary_cross_entropy_with_logits)
SIGMOIDS = (torch.sigmoid, torch.special.expit, Tensor.sigmoid, functional.sigmoid, functional.logsigmoid)
LARGEST = 255.0  # label of 8 bits


def of_loss(loss: Any, output_shape: Sequence[int], label_shape: Sequence[int]) -> dict[str, Any]:
    """Return ``logits`` and ``label_range`` of a network's description; see :meth:`multiseg.network.Network.describe`.

    PyTorch's criteria are known. A loss that the file defines itself is called for a random output (N, *output_shape) between 0
    and 1 and labels (N, *label_shape), on the CPU. ``logits`` is true if it computes the binary cross entropy of logits, or the
    sigmoid of values of the output. {} if it calls none of these functions, or fails before.
    """
    if isinstance(loss, (*losses.BY_CLASS, *losses.BY_ELEMENT, ClassLoss)):
        return losses.of_probabilities(loss)
    calls = _calls(loss, output_shape, label_shape, 0.0)
    if not (calls.logits or calls.of_probabilities):
        return {}
    found: dict[str, Any] = {"logits": calls.logits}
    if calls.targets and not calls.of_classes:
        middle, largest = (
            max(_calls(loss, output_shape, label_shape, label).targets, default=0.0) for label in (LARGEST / 2, LARGEST)
        )
        if largest > 0 and math.isclose(
            2 * middle, largest, rel_tol=1e-5
        ):  # otherwise the loss limits the labels itself
            found["label_range"] = [0, round(LARGEST / largest)]
    return found


def _calls(loss: Any, output_shape: Sequence[int], label_shape: Sequence[int], label: float) -> _Calls:
    """Call a loss for labels of one value, and return the calls that it made until it returned or failed."""
    draw = torch.Generator().manual_seed(1)
    output = torch.rand(2, *output_shape, generator=draw) * 0.98 + 0.01
    calls = _Calls(output.clone())
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            own = copy.deepcopy(loss)  # so that a loss with state is unchanged
            own = own.cpu() if isinstance(own, nn.Module) else own
            with calls:
                own(output, torch.full((2, *label_shape), label))
        except (
            Exception
        ):  # of any kind: the function is the user's, and its first use in the training reports the error
            pass
    return calls


class _Calls(TorchFunctionMode):
    """Records the calls of CROSS_ENTROPIES and SIGMOIDS.

    ``logits``: whether a cross entropy is that of logits, or a sigmoid that of values of the output; ``of_probabilities``:
    whether there is a cross entropy; ``targets``: the largest target of each one that takes all labels; ``of_classes``: whether
    the loss takes class indices as well.
    """

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.values = output
        self.logits = self.of_probabilities = self.of_classes = False
        self.targets: list[float] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in CROSS_ENTROPIES:
            arguments = inspect.signature(function).bind(*args, **kwargs).arguments
            self.logits = self.logits or function is functional.binary_cross_entropy_with_logits
            self.of_probabilities = True
            # the value of a label is unlimited if the loss leaves out some labels afterwards, or weights them with 0
            if arguments.get("reduction", "mean") != "none" and arguments.get("weight") is None:
                self.targets.append(float(arguments["target"].max()))
        elif function in SIGMOIDS:
            self.logits = self.logits or self._of_output(args[0] if args else kwargs["input"])
        elif function in (functional.cross_entropy, functional.nll_loss):
            self.of_classes = True
        return function(*args, **kwargs)

    def _of_output(self, values: Any) -> bool:
        """Return whether all of some values are values of the output, in any order."""
        return isinstance(values, Tensor) and values.numel() > 0 and bool(torch.isin(values.float(), self.values).all())
