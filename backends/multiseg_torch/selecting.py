"""Let a module that returns several outputs, or one that is cut to a layer, return the one output that is trained and tested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from multiseg.errors import ModelError, setting
from multiseg.topology.names import unknown_output
from multiseg_torch.describing import tracing


def select(path: str, model: nn.Module, names: Sequence[str], images: Tensor) -> None:
    """Make the model return only the output of this name, as its description has it; ``images`` (N, C, H, W) are for a trial.

    It is a tensor that the model returns, or the output of a call of one of its modules. The names of parameters stay the same.
    Raises ModelError for several or unknown names, and for a layer within a module's own code.
    """
    if len(names) != 1:
        raise ModelError(f"{path}: {setting('outputs', list(names))}: training and testing want one output")
    (name,) = names
    model.eval()
    place = tracing.place_of(model, images, name)
    if place is not None:
        model.register_forward_hook(lambda module, arguments, made: tracing.tensors_of(made)[place])
        return
    call = tracing.call_of(model, images, name)
    if call is None:
        layers, _, titles = tracing.layers_of(model, [images])
        known = [value for layer in layers for value in (layer["name"], *layer["outputs"])]
        if name not in known:
            raise unknown_output(path, name, [*titles, *known])
        raise ModelError(
            f"{path}: {setting('outputs', name)}: is computed by a function in forward; training and testing can be cut to "
            "a tensor that the network returns, or to a module"
        )
    module_name, number = call
    outputs: list[Tensor | None] = []  # of the module's calls: None for the others

    def keep(module: nn.Module, arguments: Any, made: Tensor) -> None:
        outputs.append(made.clone() if len(outputs) == number else None)  # the next layer may overwrite it

    def kept(module: nn.Module, arguments: Any, made: Any) -> Any:
        output = outputs[number]
        outputs.clear()
        return output

    model.register_forward_pre_hook(lambda module, arguments: outputs.clear())  # of a call that failed
    model.get_submodule(module_name).register_forward_hook(keep)
    model.register_forward_hook(kept)
