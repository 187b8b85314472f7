"""Read a .t7 file as a whole network, or as all its parameters in one vector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from multiseg.errors import ModelError
from multiseg_torch.torch7 import criterions, t7
from multiseg_torch.torch7.modules import MODULES, Builder
from multiseg_torch.torch7.objects import Object, Problem

NAMES = ("model", "net", "network")  # common keys of a model saved in a table
FLAT = ("weights", "parameters", "params", "flatParameters")


def network(path: str) -> dict[str, Any]:
    """Return the model with its weights, and the loss if the file has one. Raise ModelError, naming the file, if invalid."""
    root = t7.read(path)
    model = _model(root)
    if model is None:
        raise ModelError(f"{path}: holds no module of nn, but {_looks(root)}; save the whole model to describe it")
    loss = root.fields.get("criterion") or root.fields.get("loss") if root.type is None else None
    try:
        return {
            "model": Builder().module(model),
            "loss": criterions.build(loss) if isinstance(loss, Object) and loss.type else None,
        }
    except Problem as error:
        raise ModelError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ModelError(f"{path}: its containers nest too deeply") from error


def weights(path: str) -> nn.Module | npt.NDArray[np.float32]:
    """Return a whole network, or the vector of all parameters as getParameters returns it.

    Raises ModelError, naming the file, if it holds neither.
    """
    root = t7.read(path)
    if _model(root) is not None:
        model: nn.Module = network(path)["model"]
        return model
    found = [root] if isinstance(root, np.ndarray) else []
    if isinstance(root, Object):
        found = [root.fields[name] for name in FLAT if isinstance(root.fields.get(name), np.ndarray)]
    if len(found) != 1 or found[0].size != math.prod(found[0].shape) or found[0].ndim != 1 or not found[0].size:
        raise ModelError(
            f"{path}: holds {_looks(root)}; a whole model, or the vector that its getParameters() gives, is needed"
        )
    return np.ascontiguousarray(found[0], np.float32)


def _model(root: Any) -> Object | None:
    if not isinstance(root, Object):
        return None
    if root.type is not None:
        return root if root.kind in MODULES or root.type.startswith(("nn.", "cudnn.")) else None
    named = [root.fields[name] for name in NAMES if name in root.fields]
    found = [each for each in named or root.fields.values() if isinstance(each, Object) and each.kind in MODULES]
    return found[0] if len(found) == 1 else None


def _looks(root: Any) -> str:
    if isinstance(root, Object):
        keys = ", ".join(map(str, list(root.fields)[:8]))
        return f"a {root.type}" if root.type else f"a table with {keys or 'nothing in it'}"
    return f"a tensor of {root.shape}" if isinstance(root, np.ndarray) else f"a {type(root).__name__}"
