"""Run Torch7 network files by Lua in a sandbox, and build PyTorch modules from the result.

The file runs in a separate process (sandbox.py), with a ``torch`` and an ``nn`` that only record the modules and operations
(tensors.lua, classes.lua, nn.lua, nngraph.lua). It has no access to os, io, debug, package, file loading or Python objects.
Memory, instructions and CPU time are limited.
"""

from __future__ import annotations

import codecs
import difflib
import json
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from multiseg.errors import ModelError, setting
from multiseg.files import read_bytes
from multiseg.worker.choice import Choice, as_words, lacks_classes
from multiseg_torch.torch7 import criterions, start
from multiseg_torch.torch7.modules import MODULES, PARTS, Builder
from multiseg_torch.torch7.objects import Object, Problem

MEMORY_BYTES = 256 * 2**20
INSTRUCTIONS = 500_000_000  # a second or two
SECONDS = 8  # CPU time; limits long C calls of Lua, such as string.find with a bad pattern
WALL_SECONDS = 300  # on a machine with other load

# arguments of the file itself, which a program passes by loadfile(...)(32, 32); those of functions are indented
ARGUMENTS = re.compile(
    r"^local[ \t]+(\w+(?:[ \t]*,[ \t]*\w+)*)[ \t]*=[ \t]*(?:\.\.\.|\{[ \t]*\.\.\.[ \t]*\})", re.MULTILINE
)
HOOKS = {"labelHook": "changes the labels during training; create these labels in the dataset"}


def run(chosen: Choice, params: dict[str, Any]) -> dict[str, Any]:
    """Return the table that the file's function returns for ``params``, with PyTorch modules in it.

    The function is the one that was chosen, else the one that the file returns. The table's ``files`` are the other Lua files
    that were run, relative to the folder of the file.

    Raises ModelError, naming file and line, for Lua errors, unknown modules, invalid arguments, and exceeded limits.
    """
    path = str(chosen.file)
    try:
        answer = _execute(chosen, params)
        return {**_build(answer, chosen), "files": answer["files"]}
    except Problem as error:
        message = f"{error}{lacks_classes(chosen.file, params['nclasses'])}"
        other = re.match(r"(\S+\.lua):(\d+): ", message)
        message += "" if other else _lacks_arguments(chosen.file, message)
        if other:  # in another file than the network's
            raise ModelError(f"{chosen.file.parent / other[1]}:{message[len(other[1]) + 1 :]}") from error
        line = re.match(r"line (\d+): ", message)
        raise ModelError(f"{path}:{line[1]}: {message[line.end() :]}" if line else f"{path}: {message}") from error
    except RecursionError as error:
        raise ModelError(f"{path}: its containers nest too deeply") from error


def _execute(chosen: Choice, params: dict[str, Any]) -> dict[str, Any]:
    path = str(chosen.file)
    positional, named = chosen.call_arguments() if chosen.arguments else ([], {})
    if named:
        raise ModelError(f"{path}: {chosen.name}: Lua functions have no named arguments; specify values in order")
    try:
        source = read_bytes(path).removeprefix(codecs.BOM_UTF8).decode("latin-1")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    limits = {"memory": MEMORY_BYTES, "instructions": INSTRUCTIONS, "seconds": SECONDS}
    call = {"name": chosen.name, "arguments": positional if chosen.arguments else None, "options": dict(chosen.options)}
    request = json.dumps({"source": source, "params": params, "folder": str(chosen.file.parent), **call, **limits})
    script = str(Path(__file__).with_name("sandbox.py"))
    try:
        done = subprocess.run(
            [sys.executable, script], input=request.encode(), stdout=subprocess.PIPE, timeout=WALL_SECONDS
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise Problem(f"takes longer than {WALL_SECONDS} seconds") from error
    except ValueError as error:  # no answer
        raise Problem(f"terminates the Lua process that runs it (exit status {done.returncode})") from error
    if "missing" in answer:
        raise ModelError(
            f"{path}: Lua files need lupa with its Lua 5.1; install it with `pip install 'multiseg[torch]'`"
        )
    if "error" in answer:
        raise Problem(_clear(answer["error"], _arguments(source)))
    return answer


def _arguments(source: str) -> list[str]:
    """Return the names of the arguments that a file takes from the program that loads it."""
    arguments = ARGUMENTS.search(source)
    return [] if arguments is None else re.findall(r"\w+", arguments[1])


def _lacks_arguments(path: Path, message: str) -> str:
    """Return the end of a message about nil if the file takes arguments, which are nil; else nothing."""
    names = _arguments(read_bytes(path).decode("latin-1"))
    if not names or not re.search("|".join(["nil", "assertion failed", *(rf"\b{name}\b" for name in names)]), message):
        return ""
    return (
        f"; the file takes arguments ({', '.join(names)}) from the program that loads it, which are nil here; state their values "
        f"in the file, as in `local {', '.join(names)} = {', '.join(['VALUE'] * len(names))}`"
    )


def _clear(message: str, arguments: Collection[str]) -> str:
    """Return the first line of a Lua error as a Problem's message, with similar names if nn lacks the name.

    ``arguments`` are the names of those of the file, which are no global variables.
    """
    first = (message.splitlines() or [""])[0]
    place = re.match(r"(?:network|(\S+\.lua)):(\d+): ", first)
    said = re.sub(r"^(tensors|classes|nn|nngraph|sandbox):\d+: ", "", first[place.end() :] if place else first)
    unknown = re.search(r"attempt to (?:call|index) field '([A-Z]\w*)' \(a nil value\)", said)
    if unknown:
        known = sorted({*MODULES, *criterions.CRITERIONS, "MultiCriterion"})
        near = difflib.get_close_matches(unknown[1], known, 5, 0.5)
        said += f"; nn.{unknown[1]} is not supported, " + (
            f"similar names are: {', '.join(near)}" if near else f"supported are: {', '.join(known)}"
        )
    attempt = "attempt to (?:call|index|perform arithmetic on|compare)"
    missing = re.search(rf"{attempt} (?:global|upvalue) '(\w+)' \(a nil value\)", said)
    if missing and missing[1] not in arguments:
        option = "opt.depth=18" if missing[1] == "opt" else f"{missing[1]}=..."
        said += (
            f"; a variable of the program around the file can be specified: {setting('model_options', example=option)}"
        )
    if place and place[1]:
        return f"{place[1]}:{place[2]}: {said}"
    return f"line {place[2]}: {said}" if place else said


def _build(made: dict[str, Any], chosen: Choice) -> dict[str, Any]:
    objects = {int(number): Object(each["type"]) for number, each in made["objects"].items()}
    recorded: list[tuple[Object, Any, int]] = []  # object, field and tensor id of fields that are tensors

    def value(item: Any) -> Any:
        return objects[item["object"]] if isinstance(item, dict) and "object" in item else item

    for number, each in made["objects"].items():
        for key, item in each["fields"]:
            if isinstance(item, dict) and "tensor" in item:
                recorded.append((objects[int(number)], key, item["tensor"]))
            objects[int(number)].fields[key] = value(item)
    returned, owners = (value(made["root"]).fields.get(index) for index in (1, 2))
    if not isinstance(returned, Object):
        functions = [f"{name}()" for name in made.get("functions", ())]
        words = f", or specify one of its functions: {as_words(chosen.file, functions)}" if functions else ""
        raise Problem(
            f"returns {_type(returned)}; it must `return function(params) ... end`, whose function returns a table with "
            f"`model`{words}"
        )
    table = {"model": returned} if returned.type else returned.fields
    for hook, why in HOOKS.items():
        if table.get(hook) is not None:
            raise Problem(f"has a {hook}, which is not supported: it {why}")
    model = table.get("model")
    if not isinstance(model, Object) or model.type is None:
        raise Problem(f"returns {_type(model)} as its model; it must be a module of nn")
    builder = Builder()
    root = builder.module(model)
    for owner in owners.listed():  # including modules outside the model: others may be copies of them
        builder.module(owner)
    numbers = {id(each): number for number, each in objects.items()}
    modules = {numbers[known]: module for known, module in builder.built.items() if module is not None}
    owned = {entry[1]: entry[2] for entry in made["log"] if entry[0] == "parameter"}
    tensors = start.replay(made["log"], modules, {number for _, _, number in recorded})
    for each, key, number in recorded:
        if number in tensors:
            each.fields[key] = np.asarray(tensors[number].detach())
            if key in PARTS and numbers[id(each)] in modules:
                if owned.get(number, numbers[id(each)]) != numbers[id(each)]:
                    raise Problem(
                        f"{each.place}: its {key} belongs to another module; sharing parameters is not supported"
                    )
                start.put(each, modules[numbers[id(each)]], key, tensors[number])
    loss = table.get("loss")
    if loss is not None and not isinstance(loss, Object):
        raise Problem(f"returns {_type(loss)} as its loss; it must be a criterion such as nn.SmoothL1Criterion()")
    return {
        "model": root,
        # DIGITS' default
        "loss": criterions.build(loss or Object("nn.ClassNLLCriterion")),
        **{key: table.get(key) for key in ("trainBatchSize", "validationBatchSize", "croplen")},
    }


def _type(value: Any) -> str:
    if isinstance(value, Object):
        return value.type or "table"
    if isinstance(value, dict):
        return str(value.get("is", "tensor"))
    return {type(None): "nil", bool: "boolean", str: "string"}.get(type(value), "number")
