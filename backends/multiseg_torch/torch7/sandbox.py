"""Run a Torch7 network file in a separate process: a script that reads a request from stdin and writes the result to stdout.

The request is JSON: ``source``, ``params``, the ``folder`` whose other Lua files it may run, ``name`` and ``arguments`` of the
function to call, both perhaps null, ``options`` (global variables by their names with dots), and the limits ``memory`` (bytes),
``instructions`` and ``seconds`` (CPU time). The answer is JSON: ``error``, or ``root``, ``objects``, ``log``, ``files`` (the
other Lua files that were run) and ``functions`` (names of those that the file defines); see multiseg_torch.torch7.lua. The file's
output goes to stderr. The file has no access to Python objects. Of installed packages, only lupa is imported.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

LARGEST = 128 << 20  # maximum length of an answer in characters
BYTECODE = "\x1b"  # the beginning of compiled Lua, which can break out of any sandbox


class Watch(threading.Thread):
    """End the process, with an answer, when it exceeds its CPU time, even during a long C call."""

    def __init__(self, seconds: float, answer: Callable[[Any], None]) -> None:
        super().__init__(daemon=True)
        self.seconds, self.answer = seconds, answer
        self.position = "network"

    def note(self, position: str) -> None:
        """Record the line that is being executed."""
        self.position = position

    def run(self) -> None:
        """See threading.Thread."""
        while time.process_time() < self.seconds:
            time.sleep(0.05)
        self.answer({"error": f"{self.position}: takes longer than {self.seconds} seconds"})


def answer(out: TextIO, content: Any) -> None:
    """Write ``content`` as JSON and end the process."""
    text = json.dumps(content)
    if len(text) > LARGEST:
        text = json.dumps({"error": f"describes its modules and tensors with more than {LARGEST >> 20} MiB"})
    out.write(text)
    out.flush()
    os._exit(0)


def export(lupa: Any, root: Any, describe: Any) -> tuple[Any, dict[int, Any]]:
    """Return ``root`` as JSON values, and the type and fields of each table reachable from it."""
    objects: dict[int, Any] = {}
    waiting: list[tuple[int, Any]] = []

    def value(thing: Any) -> Any:
        if thing is None or isinstance(thing, (bool, int, float, str)):
            return thing
        if lupa.lua_type(thing) != "table":
            return {"is": lupa.lua_type(thing)}
        number, typename, is_tensor, thing = describe(thing)
        if is_tensor:
            return {"tensor": number}
        if number not in objects:
            objects[number] = {"type": typename, "fields": []}
            waiting.append((number, thing))
        return {"object": number}

    exported = value(root)
    while waiting:
        number, thing = waiting.pop()
        objects[number]["fields"] = [[key, value(item)] for key, item in thing.items() if isinstance(key, (int, str))]
    return exported, objects


def plain(entry: Any) -> Any:
    """Return a table of numbers and tables as lists; missing elements are None."""
    if not hasattr(entry, "keys"):
        return entry
    values = dict(entry.items())
    return [plain(values.get(i + 1)) for i in range(max(values, default=0))]


class Beside:
    """The Lua files in the folder of a network file, or up to two folders above, which it may run by name."""

    def __init__(self, folder: str) -> None:
        self.folders = [os.path.normpath(os.path.join(folder, *[".."] * levels)) for levels in range(3)]  # noqa: PTH118
        self.used: list[str] = []

    def source(self, name: str, is_module: bool) -> tuple[str, str] | None:
        """Return the source of a file and its name relative to the network file's folder; None if there is none.

        Raises ValueError if it is larger than LARGEST.

        ``is_module``: a name as of ``require``, with dots for folders and without extension.
        """
        name = name[2:] if name.startswith("./") else name
        plain = (
            [name.replace(".", "/") + ".lua", name + ".lua", name.replace(".", "/") + "/init.lua"]
            if is_module
            else [name]
        )
        beside = [os.path.basename(option) for option in plain[:1]]  # noqa: PTH119 - where a run keeps a copy
        for folder in self.folders:
            for option in plain + (beside if folder == self.folders[0] else []):
                path = os.path.realpath(os.path.join(folder, option))  # noqa: PTH118
                inside = path.startswith(os.path.realpath(folder) + os.sep)
                if not inside or not path.endswith(".lua") or not os.path.isfile(path):  # noqa: PTH113
                    continue
                try:
                    with open(path, encoding="latin-1", newline="") as file:  # noqa: PTH123
                        text = file.read(LARGEST + 1)
                except OSError:
                    continue
                shown = os.path.relpath(path, os.path.realpath(self.folders[0]))
                if len(text) > LARGEST:
                    raise ValueError(f"{shown}:1: is larger than {LARGEST >> 20} MiB")
                self.used.append(shown)
                return text, shown
        return None


def deep(lua: Any, value: Any) -> Any:
    """Return a value of JSON as a value of Lua."""
    if isinstance(value, dict):
        return lua.table_from({key: deep(lua, item) for key, item in value.items()})
    if isinstance(value, list):
        return lua.table_from([deep(lua, item) for item in value])
    return value


def limit_memory(largest: int) -> None:
    """Limit the memory of the whole process, in bytes, in addition to that of Lua's allocator."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    if limit == resource.RLIM_INFINITY or limit > largest:  # the user may have set a lower one
        resource.setrlimit(resource.RLIMIT_AS, (largest, largest))


def nested(options: dict[str, Any]) -> dict[str, Any]:
    """Return global variables by their names with dots as tables."""
    tables: dict[str, Any] = {}
    for key, item in options.items():
        *parents, last = key.split(".")
        table = tables
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = item
    return tables


def own(compiled: Any, name: str) -> Any:
    """Return one of the Lua files in this script's folder as a function."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    with open(os.path.join(here, name + ".lua")) as file:  # noqa: PTH118, PTH123
        return compiled(file.read(), "=" + name)


def opener(compiled: Any, beside: Beside) -> Callable[[Any, Any], Any]:
    """Return the function with which a network file opens the Lua files beside it."""

    def another(name: Any, is_module: Any) -> Any:
        """Return another file as a function and its name; None and a message if that fails; None if there is none."""
        try:
            file = beside.source(str(name), bool(is_module))
        except ValueError as error:
            return None, str(error)
        if file is None:
            return None
        source, path = file
        if source.startswith(BYTECODE):
            return None, f"{path}:1: is compiled Lua; only source text is run"
        chunk = compiled(source.lstrip("\xef\xbb\xbf"), "=" + path)
        return chunk if isinstance(chunk, tuple) else (chunk, path)

    return another


class Refused(Exception):
    """What is wrong with the file, in words."""


def network_of(lupa: Any, lua: Any, request: Any, chunk: Any, kit: Any, run: Any, names: Any) -> tuple[Any, list[str]]:
    """Return what the file, or the function of the request, returns, and the names of the functions that the file defines.

    ``chunk`` is the file as a function, ``kit`` has the tensors of Torch, ``run`` calls a function within the limits, and
    ``names`` lists and looks up the functions that the file defines. Raises Refused.
    """

    def called(function: Any, *arguments: Any) -> Any:
        result = run(function, *arguments)
        if isinstance(result, tuple):  # nil, a message, whether memory ran out
            _, message, memory = result
            raise Refused(f"{message}: {too_large(request)}" if memory else message)
        return result

    tables = {
        key: kit.storage(lua.table_from(item)) if isinstance(item, list) else item
        for key, item in request["params"].items()
    }
    argument = lua.table_from(tables)
    for key, item in nested(request["options"]).items():
        lua.globals()[key] = deep(lua, item)
        argument = lua.globals()[key] if key == "opt" else argument
    names(None)
    network = called(chunk)
    functions = list(names(None).values())
    if request["name"]:
        network = names(request["name"], network)
        if network is None:
            known = f"; it defines: {', '.join(functions)}" if functions else ""
            raise Refused(f"defines no function {request['name']}{known}")
    if lupa.lua_type(network) == "function":
        arguments = request["arguments"]
        network = called(network, *([argument] if arguments is None else [deep(lua, item) for item in arguments]))
    return network, functions


def too_large(request: Any) -> str:
    """Return that a file exceeds the limit of memory, in words."""
    return f"takes more than {request['memory'] >> 20} MiB of memory"


def description_of(lupa: Any, lua: Any, request: Any, note: Callable[[str], None]) -> dict[str, Any]:
    """Run the file of a request in ``lua`` and return the answer. ``note`` records the current line. Raises Refused."""
    # the file has no loadstring
    compiled = lua.eval("(function(load) return function(source, name) return load(source, name) end end)(loadstring)")
    prelude, tensors, classes, modules, graphs = (
        own(compiled, name) for name in ("sandbox", "tensors", "classes", "nn", "nngraph")
    )
    if request["source"].startswith(BYTECODE):
        raise Refused("network:1: is compiled Lua; only source text is run")
    chunk = compiled(request["source"], "=network")
    if isinstance(chunk, tuple):  # nil and a message
        raise Refused(chunk[1])
    beside = Beside(request["folder"])
    fail, where, run, names, opaque = prelude(request["instructions"], note, opener(compiled, beside))
    kit = tensors(fail, where)
    classes(kit)
    modules(kit)
    graphs(kit, opaque)
    network, functions = network_of(lupa, lua, request, chunk, kit, run, names)
    root, objects = export(lupa, lua.table_from([network, kit.owners]), kit.describe)
    entries = [plain(entry) for entry in kit.log.values()]
    return {"root": root, "objects": objects, "log": entries, "files": beside.used, "functions": functions}


def main() -> None:
    """Answer one request."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        import lupa.lua51 as lupa  # Torch7's Lua version: 64/2 is 32, unpack and loadstring exist
    except ImportError as error:
        answer(out, {"missing": str(error)})
    limit_memory(4 * request["memory"] + (1 << 30))
    watch = Watch(request["seconds"], lambda content: answer(out, content))
    watch.start()
    lua = lupa.LuaRuntime(
        register_eval=False,
        register_builtins=False,
        max_memory=request["memory"],
        encoding="latin-1",
        unpack_returned_tuples=True,
    )
    try:
        answer(out, description_of(lupa, lua, request, watch.note))
    except (lupa.LuaMemoryError, MemoryError):
        answer(out, {"error": f"network: {too_large(request)}"})
    except (Refused, lupa.LuaError) as error:
        answer(out, {"error": str(error)})


if __name__ == "__main__":
    del sys.path[0]  # this script's folder
    main()
