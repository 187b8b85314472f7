"""Load network files (Python modules, Torch7's Lua and .t7 files) as a model, a loss and batch sizes."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from multiseg.errors import ModelError, setting
from multiseg.files import read_bytes
from multiseg.topology.names import unused
from multiseg.worker import choice, helper_modules
from multiseg.worker.choice import Choice
from multiseg_torch import absent, candidates, kinds

FACTORIES = (
    "network", "build_network", "create_network", "get_network", "make_network", "build_model", "create_model", "get_model",
    "make_model",
)  # fmt: skip
INPUT = "input"  # name of the first input in descriptions
MADE = ("model", "net", "network")  # common names of a module that the file instantiates itself
FACTORY = (
    "define a function network(params) that returns the module, or a dict with model, loss, trainBatchSize and "
    "validationBatchSize"
)


@dataclass
class Loaded:
    """Content of a network file."""

    model: nn.Module
    loss: nn.Module | None
    batch_size: int | None
    val_batch_size: int | None
    crop: int | None  # side in pixels of the square crops that DIGITS trains on
    path: str = ""  # of the file
    files: tuple[str, ...] = ()  # others that it runs, relative to its folder
    input_shapes: tuple[tuple[int, ...], ...] = ()  # of several inputs, without the batch, if the file states them


def load(path: str, input_shape: tuple[int, int, int]) -> Loaded:
    """Load a network file, or the choice in one, detecting its kind from its content; a Python file is executed.

    Raises ModelError, naming the file and the fix, if it cannot be loaded.
    """
    chosen = choice.read(path)
    return replace(_load(chosen, input_shape), path=str(chosen.file))


def _load(chosen: Choice, input_shape: tuple[int, int, int]) -> Loaded:
    path = str(chosen.file)
    try:
        head = read_bytes(path, 1 << 16)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    suffix = Path(path).suffix
    if kinds.is_t7(head, Path(path)):
        from multiseg_torch.torch7 import snapshot

        return from_table(path, snapshot.network(path))
    params = {"inputShape": list(input_shape), "ngpus": 0, "nclasses": chosen.classes}
    if suffix == ".lua" or (suffix != ".py" and kinds.is_lua(head, Path(path))):
        from multiseg_torch.torch7 import lua

        return from_table(path, lua.run(chosen, params))
    return from_table(path, _run_python(chosen, params))


def _run_python(chosen: Choice, params: dict[str, Any]) -> Any:
    """Execute the file and make the network that was chosen, or that of its factory or its one nn.Module class."""
    path = str(chosen.file)
    spec = importlib.util.spec_from_file_location(f"{helper_modules.PACKAGE}.network", path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path}: is not a PyTorch network file; supported are .py, .lua and .t7")
    try:
        return _executed(chosen, spec, params, frozenset())
    except ModelError:
        raise
    except SyntaxError as error:
        raise ModelError(f"{error.filename or path}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        at = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        message = (str(error).splitlines() or [""])[0]
        where = f"{path}:{at[-1]}" if at else path
        hint = choice.lacks_classes(chosen.file, params["nclasses"])
        raise ModelError(f"{where}: {type(error).__name__}{f': {message}' if message else ''}{hint}") from error
    except BaseException as error:
        raise ModelError(f"{path}: {type(error).__name__}") from error


def _executed(chosen: Choice, spec: ModuleSpec, params: dict[str, Any], absent_packages: frozenset[str]) -> Any:
    """Execute the file; again, with a package that is not installed, if that is one for programs around the network."""
    try:
        with helper_modules.helpers(chosen.file, root=chosen.root), absent.importable(absent_packages):
            return helper_modules.in_folder_if_needed(chosen.file, lambda: _network(chosen, spec, params))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in absent.PACKAGES or package in absent_packages:
            raise
        return _executed(chosen, spec, params, absent_packages | {package})


def _network(chosen: Choice, spec: ModuleSpec, params: dict[str, Any]) -> Any:
    name = helper_modules.module_name(chosen.file, chosen.root)
    if name == spec.name:
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and others look up a class's module here
        assert spec.loader is not None
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(name)
    if chosen.name is not None:
        return candidates.make(chosen, module, params)
    make = _factory(str(chosen.file), module)
    return make(params) if candidates.takes_params(make) else make()


def _factory(path: str, module: ModuleType) -> Any:
    """Return the file's factory function, or its one nn.Module class."""
    if callable(getattr(module, "network", None)) and not isinstance(module.network, nn.Module):
        return module.network
    own = candidates.defined_in(module)
    factories = [own[name] for name in FACTORIES if inspect.isfunction(own.get(name))]
    if len(factories) == 1:
        return factories[0]
    if factories:
        raise ModelError(
            f"{path}: defines several functions that build a network; specify one of them: "
            f"{candidates.listed(path, factories)}"
        )
    made = [each for each in (getattr(module, name, None) for name in MADE) if isinstance(each, nn.Module)]
    if len(made) == 1:
        return lambda: made[0]
    classes = candidates.of_module(module)
    if not classes:
        raise ModelError(f"{path}: defines 0 nn.Module classes; {FACTORY}")
    if len(classes) > 1:
        raise ModelError(
            f"{path}: defines {len(classes)} nn.Module classes; specify the one that is meant: "
            f"{candidates.listed(path, classes)}"
        )
    if candidates.required(classes[0]) and not candidates.takes_params(classes[0]):
        raise ModelError(
            f"{path}: {classes[0].__name__} needs arguments; specify them: {candidates.listed(path, classes)}"
        )
    return classes[0]


def from_table(path: str, made: Any) -> Loaded:
    """Return the content of a module, or of a table as Torch7 files return it. Raise ModelError if an entry is invalid."""
    table = made if isinstance(made, dict) else {"model": made}
    model, loss = table.get("model"), table.get("loss")
    if not isinstance(model, nn.Module):
        raise ModelError(f"{path}: gives {type(model).__name__} as its model; an nn.Module is needed")
    if "_modules" not in vars(model):
        raise ModelError(f"{path}: the __init__ of {type(model).__name__} does not call super().__init__()")
    if loss is not None and not callable(loss):
        raise ModelError(
            f"{path}: gives {type(loss).__name__} as its loss; a criterion such as nn.SmoothL1Loss() is needed"
        )
    sizes = []
    for key in ("trainBatchSize", "validationBatchSize", "croplen"):
        size = table.get(key)
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ModelError(f"{path}: {key} is {size!r}; it must be a whole number from 1")
        sizes.append(size)
    shapes = table.get("inputShapes", ())
    if not all(isinstance(size, int) and size > 0 for shape in shapes for size in shape):
        raise ModelError(
            f"{path}: inputShapes is {shapes!r}; it must be a list of sizes for each input, as in [[3, 64, 64]]"
        )
    return Loaded(
        model, loss, sizes[0], sizes[1], sizes[2], files=tuple(table.get("files", ())),
        input_shapes=tuple(tuple(shape) for shape in shapes),
    )  # fmt: skip


def inputs_of(loaded: Loaded, shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's inputs by name, for images of ``shape`` (C, H, W).

    The inputs are the arguments of forward without a default. Those after the first have the shape that the file states, with the
    size of the images if the file states that of the first; without one that of the images.
    """
    names = [INPUT, *_required(loaded.model)[1:]]
    stated = loaded.input_shapes if len(loaded.input_shapes) == len(names) else (shape,) * len(names)
    inputs: dict[str, tuple[int, ...]] = {INPUT: shape}
    for name, own in zip(names[1:], stated[1:]):
        follows = len(own) == 3 and own[1:] == stated[0][1:]
        inputs[unused(name, inputs)] = (own[0], *shape[1:]) if follows else own
    return inputs


def _required(model: nn.Module) -> list[str]:
    """Return the arguments of a model's forward that have no default."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each.name for each in parameters if each.kind in positional and each.default is inspect.Parameter.empty]


@torch.no_grad()
def trial(path: str, model: nn.Module, images: Sequence[Tensor], several: bool = False) -> Any:
    """Return the model's output for ``images``, (N, C, H, W) of each input; with ``several`` it need not be one tensor.

    Raises ModelError, naming the file, the failing layer, its weights' and its input's shapes, if the forward pass fails or
    does not return one tensor.
    """
    entered: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
    hooks = []
    for name, module in model.named_modules():

        def enter(module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
            entered.append((name, module, inputs))

        def leave(module: nn.Module, inputs: Any, made: Any) -> None:
            entered.pop()

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    shape = " and ".join(str(tuple(tensor.shape[1:])) for tensor in images)
    try:
        made = model(*images)
    except Exception as error:
        told = str(error).splitlines() or [type(error).__name__]
        raise ModelError(f"{path}: cannot take images of {shape} (C, H, W): {_at(entered)}{told[0]}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(made, Tensor) and not (several and isinstance(made, (list, tuple, dict))):
        names = [name for name in made if isinstance(made[name], Tensor)] if isinstance(made, dict) else []
        listed = f" ({', '.join(map(str, names))})" if names else ""
        several_outputs = isinstance(made, (list, tuple, dict)) and len(made) > 1
        remedy = f"; cut the network to one, with {setting('outputs', example='NAME')}" if several_outputs else ""
        raise ModelError(f"{path}: gives a {type(made).__name__}{listed}; training and testing want one output{remedy}")
    return made


def _at(entered: list[tuple[str, nn.Module, tuple[Any, ...]]]) -> str:
    """Return the innermost layer that failed, with the shapes of its weights and its input."""
    if not entered or not entered[-1][0]:
        return ""
    name, module, inputs = entered[-1]
    given = " and ".join(_shape(each) for each in inputs)
    weight = getattr(module, "weight", None)
    has = f" with weights {tuple(weight.shape)}" if isinstance(weight, Tensor) else ""
    return f"layer {name!r} ({type(module).__name__}{has}) is given {given}: "


def _shape(value: Any, depth: int = 2) -> str:
    """Return the shape of a tensor, or those in a table: at most the first few, as tables may be nested and shared."""
    if isinstance(value, (list, tuple)):
        parts = [_shape(part, depth - 1) if depth else "..." for part in value[:8]]
        return "(" + " and ".join([*parts, "..."] if len(value) > 8 else parts) + ")"
    return str(tuple(value.shape[1:])) if isinstance(value, Tensor) else type(value).__name__
