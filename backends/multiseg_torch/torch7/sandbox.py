"""Runs a Torch7 network file, in a process of its own: a script that reads a request from stdin and writes what came of it.

The request is JSON: ``source``, ``params``, and the limits ``memory`` (bytes), ``instructions`` and ``seconds`` (of the
processor). The answer is JSON too: ``error``, or ``root``, ``objects`` and ``log``; see multiseg_torch.torch7.lua. What the
file prints goes to stderr. No object of Python's reaches the file. Imports lupa alone.
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

LARGEST = 128 << 20  # characters of an answer


class Watch(threading.Thread):
    """Ends the process, with an answer, when it has used too much of the processor: not even a long call of C's goes on."""

    def __init__(self, seconds: float, answer: Callable[[Any], None]) -> None:
        super().__init__(daemon=True)
        self.seconds, self.answer = seconds, answer
        self.position = "network"

    def note(self, position: str) -> None:
        """Say at which line the file is."""
        self.position = position

    def run(self) -> None:
        """See threading.Thread."""
        while time.process_time() < self.seconds:
            time.sleep(0.05)
        self.answer({"error": f"{self.position}: takes longer than {self.seconds} seconds"})


def answer(out: TextIO, made: Any) -> None:
    """Write ``made`` and end the process."""
    text = json.dumps(made)
    if len(text) > LARGEST:
        text = json.dumps({"error": f"says more than {LARGEST >> 20} MiB about its modules and tensors"})
    out.write(text)
    out.flush()
    os._exit(0)


def export(lupa: Any, root: Any, describe: Any) -> tuple[Any, dict[int, Any]]:
    """What can be reached from ``root``, each table once: its type and its fields."""
    objects: dict[int, Any] = {}
    waiting: list[tuple[int, Any]] = []

    def value(thing: Any) -> Any:
        if thing is None or isinstance(thing, (bool, int, float, str)):
            return thing
        if lupa.lua_type(thing) != "table":
            return {"is": lupa.lua_type(thing)}
        number, typename, is_tensor = describe(thing)
        if is_tensor:
            return {"tensor": number}
        if number not in objects:
            objects[number] = {"type": typename, "fields": []}
            waiting.append((number, thing))
        return {"object": number}

    found = value(root)
    while waiting:
        number, thing = waiting.pop()
        objects[number]["fields"] = [[key, value(item)] for key, item in thing.items() if isinstance(key, (int, str))]
    return found, objects


def plain(entry: Any) -> Any:
    """A table of numbers and tables as lists; holes as None."""
    if not hasattr(entry, "keys"):
        return entry
    found = dict(entry.items())
    return [plain(found.get(i + 1)) for i in range(max(found, default=0))]


def main() -> None:
    """Answer one request."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        import lupa.lua51 as lupa  # Torch7's own Lua: 64/2 is 32, unpack and loadstring are there
    except ImportError as error:
        answer(out, {"missing": str(error)})
    # beyond Lua's own allocator: what this process may take altogether
    resource.setrlimit(resource.RLIMIT_AS, (4 * request["memory"] + (1 << 30),) * 2)
    watch = Watch(request["seconds"], lambda made: answer(out, made))
    watch.start()
    lua = lupa.LuaRuntime(
        register_eval=False, register_builtins=False, max_memory=request["memory"], encoding="latin-1"
    )
    compiled = lua.eval("function(source, name) return loadstring(source, name) end")
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120

    def own(name: str) -> Any:
        with open(os.path.join(here, name + ".lua")) as file:  # noqa: PTH118, PTH123
            return compiled(file.read(), "=" + name)

    prelude, modules = own("sandbox"), own("nn")
    if request["source"].startswith("\x1b"):  # bytecode can break out of any sandbox
        answer(out, {"error": "network:1: is compiled Lua; only source text is run"})
    chunk = compiled(request["source"], "=network")
    if isinstance(chunk, tuple):  # nil and a message
        answer(out, {"error": chunk[1]})
    fail, where, run = prelude(request["instructions"], watch.note)
    describe, log, owners, storage = modules(fail, where)

    def called(function: Any, *arguments: Any) -> Any:
        made = run(function, *arguments)
        if isinstance(made, tuple):  # nil, a message, whether memory ran out
            _, message, memory = made
            answer(
                out,
                {"error": f"{message}: takes more than {request['memory'] >> 20} MiB of memory" if memory else message},
            )
        return made

    try:
        made = called(chunk)
        if lupa.lua_type(made) == "function":
            params = {
                key: storage(lua.table_from(item)) if isinstance(item, list) else item
                for key, item in request["params"].items()
            }
            made = called(made, lua.table_from(params))
        made = lua.table_from([made, owners])
        root, objects = export(lupa, made, describe)
        answer(out, {"root": root, "objects": objects, "log": [plain(entry) for entry in log.values()]})
    except (lupa.LuaMemoryError, MemoryError):
        answer(out, {"error": f"network: takes more than {request['memory'] >> 20} MiB of memory"})
    except lupa.LuaError as error:
        answer(out, {"error": str(error)})


if __name__ == "__main__":
    del sys.path[0]  # this script's folder
    main()
