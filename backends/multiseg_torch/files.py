"""Network files for PyTorch: Python modules and Torch7's Lua, both giving a model, a loss and batch sizes."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from multiseg.errors import ModelError


@dataclass
class Loaded:
    """What a network file says."""

    model: nn.Module
    loss: nn.Module | None
    batch_size: int | None
    val_batch_size: int | None


def load(path: str, input_shape: tuple[int, int, int]) -> Loaded:
    """Load a network file by its extension. A Python file is executed. Raises ModelError naming file and mend."""
    params = {"inputShape": list(input_shape), "ngpus": 0, "nclasses": None}
    if Path(path).suffix == ".lua":
        from multiseg_torch import lua

        return from_table(path, lua.run(path, params))
    return from_table(path, _run_python(path, params))


def _run_python(path: str, params: dict[str, Any]) -> Any:
    """Execute the file and call its ``network(params)``, or build the one nn.Module class that it defines."""
    spec = importlib.util.spec_from_file_location("multiseg_user_model", path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path}: is no network file for PyTorch; it loads .py and .lua")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and others look a class's module up there
    try:
        spec.loader.exec_module(module)
        if callable(getattr(module, "network", None)):
            return module.network(params)
        classes = [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == module.__name__
        ]
        if len(classes) == 1:
            return classes[0](**({"params": params} if "params" in inspect.signature(classes[0]).parameters else {}))
    except SyntaxError as error:
        raise ModelError(f"{path}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        at = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        raise ModelError(f"{path}:{at[-1] if at else ''}: {type(error).__name__}: {error}") from error
    raise ModelError(
        f"{path}: defines {len(classes)} nn.Module classes; define a function network(params) that returns the module, or a "
        "dict with model, loss, trainBatchSize and validationBatchSize"
    )


def from_table(path: str, made: Any) -> Loaded:
    """From a module, or a table as Torch7 files return it."""
    table = made if isinstance(made, dict) else {"model": made}
    model, loss = table.get("model"), table.get("loss")
    if not isinstance(model, nn.Module):
        raise ModelError(f"{path}: gives {type(model).__name__} as its model; an nn.Module is needed")
    if loss is not None and not callable(loss):
        raise ModelError(
            f"{path}: gives {type(loss).__name__} as its loss; a criterion such as nn.SmoothL1Loss() is needed"
        )
    sizes = []
    for key in ("trainBatchSize", "validationBatchSize"):
        size = table.get(key)
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ModelError(f"{path}: {key} is {size!r}; it must be a whole number from 1")
        sizes.append(size)
    return Loaded(model, loss, *sizes)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's neutral weights by name, sharing its memory. BatchNorm's count of batches is no weight."""
    return {name: value.detach() for name, value in model.state_dict().items() if value.is_floating_point()}
