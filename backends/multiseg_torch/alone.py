"""Write a program that computes an exported network in PyTorch alone; see multiseg.topology.interfaces.AloneWriter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multiseg_torch import files
from multiseg_torch.weights import neutral_name


def lines(network: str, weights: str, input_shape: Sequence[int], output: str, parameter: str | None) -> list[str]:
    """See multiseg.topology.interfaces.AloneWriter."""
    text = [
        "import importlib.util",
        "import torch",
        f"spec = importlib.util.spec_from_file_location('network', {Path(network).name!r})",
        "module = importlib.util.module_from_spec(spec)",
        "spec.loader.exec_module(module)",
        f"model = module.network({{'inputShape': {list(input_shape)}}})['model'].eval()",
        *([f"model.load_state_dict(torch.load({Path(weights).name!r}))"] if Path(weights).exists() else []),
        "output = model(torch.from_numpy(batch['input']))",
    ]
    if parameter is None:
        text.append("measured = output.detach().numpy()")
    else:
        channels, height, width = input_shape
        model = files.load(network, (channels, height, width)).model
        name = next(name for name, _ in model.named_parameters() if neutral_name(name) == parameter)
        text += [
            "output.backward(torch.from_numpy(batch['output_gradient']).reshape(output.shape))",
            f"measured = model.get_parameter({name!r}).grad.numpy()",
        ]
    return [*text, "version = f'PyTorch {torch.__version__}'"]
