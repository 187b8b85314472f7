"""Trace the layers of an nn.Module: each call of a PyTorch module or of a function on tensors.

The model runs once, on two images, as ordinary Python, so loops and conditions on shapes need no special handling. If it slices
values where calculated numbers say, it runs again, on images of another size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from multiseg.errors import ModelError
from multiseg.network import Array
from multiseg.topology.names import unused
from multiseg.topology.vocabulary import VOCABULARY, ShapeError, infer
from multiseg_torch import lowering
from multiseg_torch.describing import effects, functions, lengths, modules, parts, statistics, swish, values
from multiseg_torch.describing.functions import Call, Entry
from multiseg_torch.files import INPUT as INPUT
from multiseg_torch.weights import neutral_name


def layers_of(
    model: nn.Module, images: Sequence[Tensor], inputs: Sequence[str] = (INPUT,)
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Return the layers in execution order, in the format of multiseg.model_files, the names of the outputs, and their titles.

    ``images`` are tensors for the inputs of these names. The titles are the keys of a dict that the model returns, else the
    names. Raises ModelError unless the model returns tensors that depend on the images, one or several in lists, tuples and
    dicts.
    """
    model.eval()
    recorder, result = _recorded(model, images, inputs)
    if recorder.crops:
        same = _crops_of_any_size(model, images, inputs, recorder.crops)
        if same != set(recorder.crops):
            recorder, result = _recorded(model, images, inputs, same)
    titled: dict[str, str] = {}
    for tensor, title in _titled(result):
        for name in recorder.known([tensor]):
            titled.setdefault(name, title or name)
    outputs = list(titled)
    if not outputs:
        raise ModelError("returns no tensor that depends on its input")
    layers = swish.folded(recorder.layers, outputs)
    statistics.mark_training(model, images[0], layers, images[1:])
    return layers, outputs, list(titled.values())


def _recorded(
    model: nn.Module, images: Sequence[Tensor], inputs: Sequence[str], crops: Collection[int] | None = None
) -> tuple[_Recorder, Any]:
    recorder = _Recorder(model, images, inputs, crops)
    with torch.no_grad(), recorder.watching(), recorder:
        return recorder, model(*images)


def _crops_of_any_size(
    model: nn.Module, images: Sequence[Tensor], inputs: Sequence[str], crops: Mapping[int, Any]
) -> set[int]:
    """Return those of the crops that images of another size have as well."""
    if any(image.ndim != 4 for image in images):
        return set()
    try:
        other, _ = _recorded(model, [lengths.of_other_size(image) for image in images], inputs)
    except Exception:  # the network takes images of one size only
        return set()
    return {number for number, crop in crops.items() if other.crops.get(number) == crop}


def tensors_of(result: Any) -> list[Tensor]:
    """Return the tensors that a model returns, in the order of its lists, tuples and dicts."""
    return [tensor for tensor, _ in _titled(result)]


def place_of(model: nn.Module, images: Tensor, name: str) -> int | None:
    """Return the place, among the tensors that a model returns, of the one with this title or name; None without one."""
    recorder = _Recorder(model, [images], [INPUT])
    with torch.no_grad(), recorder.watching(), recorder:
        result = model(images)
    pairs = list(_titled(result))
    for words in ([title for _, title in pairs], [recorder.names.get(id(tensor), "") for tensor, _ in pairs]):
        if name in words:
            return words.index(name)
    return None


def call_of(model: nn.Module, images: Tensor, name: str) -> tuple[str, int] | None:
    """Return the module whose call computes a layer or value, and the number of that call from 0; None if a function does.

    A layer that is called several times is its last call, as in multiseg.topology.cutting.
    """
    recorder = _Recorder(model, [images], [INPUT])
    with torch.no_grad(), recorder.watching(), recorder:
        model(images)
    values = [layer["outputs"][0] for layer in recorder.layers if layer["name"] == name]
    return recorder.calls.get(values[-1] if values else name)


def sharing(model: nn.Module, layers: list[dict[str, Any]]) -> dict[str, list[list[str]]]:
    """Return the names of the layers that share a parameter, one list per parameter, and those of the parameter in them."""
    users: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        users.setdefault(id(value), []).append(neutral_name(name))
    known = {layer["name"] for layer in layers}
    tied = [names for names in users.values() if len(names) > 1]
    layers_of = ([name.rpartition(".")[0] for name in names if name.rpartition(".")[0] in known] for names in tied)
    return {"shared": [names for names in layers_of if len(names) > 1], "tied": tied}


def activations_of(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Array]]:
    """Return the output, and copies of all layers' outputs by the value names of :func:`layers_of`.

    Outputs are copied immediately, as the next layer may modify them in place.
    """
    keeper = _Keeper(model, [images], [INPUT])
    with torch.no_grad(), keeper.watching(), keeper:
        output = model(images)
    kept = {value for layer in swish.folded(keeper.layers, [keeper.names[id(output)]]) for value in layer["outputs"]}
    return output, {name: array for name, array in keeper.arrays.items() if name in kept}


class _Recorder(TorchFunctionMode):
    """Recorder of calls; calls inside a module that is a single layer are not recorded."""

    def __init__(
        self,
        model: nn.Module,
        images: Sequence[Tensor],
        inputs: Sequence[str],
        crops: Collection[int] | None = None,
    ) -> None:
        """Record ``model``; of the crops at calculated places only those of these numbers, by default all, are Crops."""
        super().__init__()
        self.model, self.batch = model, images[0].shape[0]
        self.slices, self.allowed = 0, crops
        self.crops: dict[int, Any] = {}  # by number: name and place of each crop at a calculated place
        self.names = {
            id(tensor): name for tensor, name in zip(images, inputs)
        }  # names of values, by the id of their tensors
        self.alive: list[Any] = [*images]  # keeps tensors alive, so that no id is reused
        self.parameters = {id(each): name for name, each in [*model.named_parameters(), *model.named_buffers()]}
        self.computed: dict[int, tuple[str, set[str]]] = {}  # values computed from weights: how, and their names
        self.taken = set(inputs)
        self.layers: list[dict[str, Any]] = []
        self.scope: list[str] = []
        self.within = 0
        self.counts: Counter[str] = Counter()  # calls of each module that is a single layer
        self.calls: dict[
            str, tuple[str, int]
        ] = {}  # value -> the module that computes it, and the number of the call from 0

    def watching(self) -> ExitStack:
        """Return a stack with hooks on all modules; closing it removes them."""
        stack = ExitStack()
        for name, module in self.model.named_modules():
            if _is_layer(module):
                enter, leave = self._leaf(name)
            else:
                enter, leave = self._inner(name)
            stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            # before the module's other hooks, so that their copies of its output are recorded as that output
            stack.callback(module.register_forward_hook(leave, with_kwargs=True, prepend=True).remove)
        return stack

    def _leaf(self, name: str) -> tuple[Any, Any]:
        def enter(module: nn.Module, arguments: Any, named: Any) -> None:
            self.within += 1

        def leave(module: nn.Module, arguments: Any, named: Any, result: Any) -> None:
            self.within -= 1
            if not self.within:
                self._note_module(name or "model", module, [*_tensors([*arguments, *named.values()])], result)
                if isinstance(result, Tensor) and id(result) in self.names:
                    self.calls[self.names[id(result)]] = name, self.counts[name]
            self.counts[name] += 1

        return enter, leave

    def _inner(self, name: str) -> tuple[Any, Any]:
        def leave(*_: Any) -> None:
            self.scope.pop()

        return lambda *_: self.scope.append(name), leave

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if self.within:
            return result
        if function in lengths.GETTERS:
            return lengths.of_sizes(result, *args, **(kwargs or {})) if id(args[0]) in self.names else result
        self._note_function(function, args, kwargs or {}, result)
        return result

    def _note_module(self, name: str, module: nn.Module, read: list[Tensor], result: Any) -> None:
        outputs, inputs = list(_tensors([result])), self.known(read)
        if not inputs or not outputs:
            return
        weights = {part: tuple(v.shape) for part, v in module.state_dict().items() if v.is_floating_point()}
        rule = modules.of_module(module)
        call = Call({"input": read[0]}, tuple(read[0].shape), tuple(outputs[0].shape))
        entry = rule(module, call) if rule else None
        self._add(name, type(module).__name__, entry, inputs, read, outputs, weights, values.of_module(module))
        reason = modules.reason_of(module) if self.layers[-1]["type"] not in VOCABULARY else None
        if reason:
            self.layers[-1]["reason"] = reason

    def _note_function(self, function: Any, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        name = str(getattr(function, "__name__", function))
        if name == "__setitem__":  # the tensor it writes to becomes a new value
            result = args[0]
        outputs = list(_tensors([result]))
        read = list(_tensors([*args, *kwargs.values()]))
        inputs = self.known(read)
        plain = name if name.startswith("__") else name.rstrip("_").removeprefix("__i")
        if name.startswith("__i") and name.endswith("__") and name != "__init__":
            plain = f"__{name[3:]}" if f"__{name[3:]}" in functions.FUNCTIONS else name
        if not inputs:
            self._note_weights(plain, args, kwargs, read, outputs)
        if not inputs or not outputs or plain in effects.CONSTANTS:
            return
        self.alive.append(result)
        same = len(outputs) == 1 and outputs[0].shape == read[0].shape
        unchanged = plain in effects.NOTHING and effects.keeps_values(read[0].dtype, outputs[0].dtype)
        if unchanged or (same and plain in ("view", "reshape", "flatten", "__get__", "expand_as")):
            self.names[id(outputs[0])] = self.names[id(next(each for each in read if id(each) in self.names))]
            return
        used = {self.parameters[id(each)] for each in read if id(each) in self.parameters}
        used |= {parameter for each in read if id(each) in self.computed for parameter in self.computed[id(each)][1]}
        layer, weights = self._owner(plain.strip("_"), used)
        settings = values.of_call(function, args, kwargs, self.reference)
        if outputs[0].dtype != read[0].dtype:
            settings["dtype"] = values.plain(outputs[0].dtype)
        entry = None
        if plain in ("cat", "concat", "concatenate"):
            args = parts.computed(self, layer, args, kwargs, outputs[0])
            read = list(_tensors([*args, *kwargs.values()]))
            inputs = self.known(read)
        args, kwargs, read, constants = self._without_constants(plain, args, kwargs)
        if plain in functions.FUNCTIONS and not constants:
            order, rule = functions.FUNCTIONS[plain]
            if plain == "batch_norm" and function is not functional.batch_norm:
                order = statistics.ORDERS[False]
            call = Call(_bound(order, args, kwargs, outputs), tuple(read[0].shape), tuple(outputs[0].shape))
            entry = rule(call)
        if used and entry and entry[0] in ("Mul", "Scale"):
            entry = self._scale(args, outputs[0])
        if entry and plain in ("expand_as", "view_as", "reshape_as"):  # the second tensor gives only its shape
            inputs, read = inputs[:1], read[:1]
        crop = lengths.reference(*args[:2]) if plain == "__getitem__" else None
        if crop is not None and self._is_crop(crop):
            offset = [*crop.offset] if any(crop.offset) else [0]
            entry, read = ("Crop", {"axis": 2, "offset": offset}), [read[0], crop.like]
            inputs = self.known(read)
        if entry == ("Mul", {}) and len(read) == 2 and outputs[0].shape == read[1].shape != read[0].shape:
            inputs, read = inputs[::-1], read[::-1]  # the factor of each channel comes first
        self._add(layer, plain.strip("_"), entry, inputs, read, outputs, weights, settings)

    def _is_crop(self, crop: lengths.Reference) -> bool:
        """Return whether a slice is to be described as a Crop."""
        if not crop.calculated:
            return True
        self.slices += 1
        if self.allowed is not None and self.slices not in self.allowed:
            return False
        self.crops[self.slices] = (self.known([crop.like]), crop.offset)
        return True

    def _note_weights(
        self, plain: str, args: Any, kwargs: Mapping[str, Any], read: list[Tensor], outputs: list[Tensor]
    ) -> None:
        """Record a call on weights alone: a reshaped weight is the weight, anything else is computed from it."""
        names = {self.parameters[id(each)] for each in read if id(each) in self.parameters}
        names |= {name for each in read if id(each) in self.computed for name in self.computed[id(each)][1]}
        if not names or not outputs:
            return
        self.alive += outputs
        if len(outputs) == len(read) == 1 and id(read[0]) in self.parameters and plain in effects.RESHAPES:
            self.parameters[id(outputs[0])] = self.parameters[id(read[0])]
            return
        arguments = values.plain([*args, *kwargs.values()], self.reference)
        for each in outputs:
            self.computed[id(each)] = f"{plain.strip('_')}({', '.join(map(str, arguments))})", names

    def reference(self, tensor: Tensor) -> str | None:
        """Return what a tensor is in the network, None for a constant."""
        if id(tensor) in self.names:
            return "input"
        if id(tensor) in self.parameters:
            return str(self.parameters[id(tensor)]).rpartition(".")[2]
        computed = self.computed.get(id(tensor))
        return None if computed is None else computed[0]

    def derived(
        self, layer: str, kind: str, parameters: Any, read: Tensor, compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Record a layer that the network does not call, and return its output."""
        self.within += 1
        output = compute(read)
        self.within -= 1
        name = self._free(f"{layer}.{kind.lower()}")
        self._add(name, kind, (kind, parameters), self.known([read]), [read], [output], {}, {})
        return output

    def _without_constants(
        self, plain: str, args: Any, kwargs: Mapping[str, Any]
    ) -> tuple[Any, Mapping[str, Any], list[Tensor], bool]:
        """Return the arguments of a call with constants as numbers where the vocabulary has them; and its tensors.

        The last value is whether there are other constants, or values computed from weights, which it does not have.
        """
        remain = False
        if plain in effects.ARITHMETIC:
            numbers = [
                values.uniform(each) if isinstance(each, Tensor) and self.reference(each) is None else None
                for each in args[:2]
            ]
            pair = [each if number is None else number for each, number in zip(args, numbers)]
            if len(pair) == 2 and numbers[0] is not None and effects.ARITHMETIC[plain]:
                pair.reverse()
            args = [*pair, *args[2:]]
            if kwargs:
                kwargs = {
                    name: values.uniform(each)
                    if isinstance(each, Tensor) and self.reference(each) is None and values.uniform(each) is not None
                    else each
                    for name, each in kwargs.items()
                }
        read = list(_tensors([*args, *kwargs.values()]))
        for each in read:
            remain = remain or (id(each) not in self.names and id(each) not in self.parameters)
        remain = remain or (bool(args) and functions.number(args[0]))
        return args, kwargs, read, remain

    def _scale(self, args: Any, output: Tensor) -> Entry:
        """Return Scale for weights per channel and, with addcmul, a bias (its first argument); None for other weights."""
        channels = (1, output.shape[1], *[1] * (output.ndim - 2))
        weights = [each for each in args if id(each) in self.parameters]
        last = [self.parameters[id(each)].rpartition(".")[2] for each in weights]
        right = last == ["weight"] or (last == ["bias", "weight"] and args[0] is weights[0])
        if not right or len(args) != len(weights) + 1 or any(each.shape != channels for each in weights):
            return None
        return "Scale", {"bias_term": len(weights) > 1}

    def _owner(self, word: str, used: set[str]) -> tuple[str, dict[str, tuple[int, ...]]]:
        """Return a function's layer name, that of the module whose parameters it reads, and the shapes of these parameters."""
        if not used:
            scope = self.scope[-1] if self.scope else ""
            return self._free(f"{scope}.{word}" if scope else word), {}
        owner = sorted(used)[0].rpartition(".")[0]
        state = {name: value for name, value in [*self.model.named_parameters(), *self.model.named_buffers()]}
        return owner or "model", {
            name.rpartition(".")[2]: tuple(state[name].shape)
            for name in sorted(used)
            if name.rpartition(".")[0] == owner
        }

    def known(self, read: Iterable[Tensor]) -> list[str]:
        """Return the names of the tensors that depend on the images."""
        return [self.names[id(each)] for each in read if id(each) in self.names]

    def _free(self, name: str) -> str:
        """Return the name, or name:2 and so on if it is already used."""
        return unused(name, self.taken, separator=":")

    def _add(
        self,
        name: str,
        word: str,
        entry: Entry,
        inputs: list[str],
        read: list[Tensor],
        outputs: list[Tensor],
        weights: dict[str, tuple[int, ...]],
        settings: Mapping[str, Any],
    ) -> None:
        shapes = [tuple(each.shape[1:]) for each in outputs]
        reads = [tuple(each.shape[1:]) for each in read if id(each) in self.names]
        several = [f"{name}.{index}" for index in range(len(outputs))]
        value_names = [self._free(each) for each in (several if len(outputs) > 1 else [name])]
        # a repeated call is a new layer if it has no weights; otherwise it keeps the name of its weights
        own = name if weights else self._free(name)
        layer: dict[str, Any] = {"name": own, "inputs": inputs, "outputs": value_names}
        self.taken.update([own, *value_names])
        if entry and self._right(entry, reads, shapes, weights):
            layer |= {"type": entry[0], "parameters": entry[1]}
        else:
            word = f"torch.{word}" if word in VOCABULARY else word
            layer |= {"type": word, "parameters": dict(settings), "shapes": shapes, "weights": weights}
        self.layers.append(layer)
        for tensor, value in zip(outputs, value_names):
            self.names[id(tensor)] = value
            self.alive.append(tensor)
        self._added(value_names, outputs)

    def _added(self, names: list[str], outputs: list[Tensor]) -> None:
        """Use the outputs of a layer that was recorded, as values of these names; nothing unless a subclass does."""

    def _right(self, entry: Any, reads: Any, shapes: Any, weights: Any) -> bool:
        """Return whether the vocabulary infers the shapes and weights that PyTorch has."""
        try:
            inferred, expected, _ = infer(entry[0], entry[1], reads)
        except (ShapeError, KeyError, IndexError, TypeError, ValueError):
            return False
        return bool([tuple(each) for each in inferred] == shapes and expected == weights)


class _Keeper(_Recorder):
    """Recorder that keeps the layers' outputs."""

    def __init__(self, model: nn.Module, images: Sequence[Tensor], inputs: Sequence[str]) -> None:
        super().__init__(model, images, inputs)
        self.arrays: dict[str, Array] = {}

    def _added(self, names: list[str], outputs: list[Tensor]) -> None:
        self.within += 1  # do not record the copies
        self.arrays.update(zip(names, map(_array, outputs)))
        self.within -= 1


def _bound(order: str, args: Any, kwargs: Mapping[str, Any], outputs: list[Tensor]) -> dict[str, Any]:
    """Return the arguments by the signature's names; variadic ones (``*name``) as one tuple."""
    names = order.split()
    bound: dict[str, Any] = {"all_made": [tuple(each.shape) for each in outputs]}
    for place, name in enumerate(names):
        if name.startswith("*"):
            bound[name[1:]] = args[place:]
        elif place < len(args):
            bound[name] = args[place]
    return bound | dict(kwargs)


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


def _titled(result: Any) -> Iterable[tuple[Tensor, str]]:
    """Return the tensors that a model returns, with their keys in dicts, joined by dots; without any, an empty text."""
    if isinstance(result, dict):
        for key, value in result.items():
            for tensor, title in _titled(value):
                yield tensor, f"{key}.{title}" if title else str(key)
    elif isinstance(result, (list, tuple)):
        fields = getattr(result, "_fields", [""] * len(result))  # of a named tuple
        for field, value in zip(fields, result):
            for tensor, title in _titled(value):
                yield tensor, f"{field}.{title}" if field and title else field or title
    elif isinstance(result, Tensor):
        yield result, ""


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module is a single layer, such as a lowered one; otherwise the calls inside it are recorded."""
    if isinstance(module, lowering.CLASSES) or modules.of_module(module):
        return True
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):  # even if empty
        return False
    return _torchs(module) and not next(module.children(), None)


def _torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.modules")


def _array(tensor: Tensor) -> Array:
    """Return a copy of a tensor; bfloat16, which NumPy lacks, as float32."""
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy().copy()
    return array
