"""Run a Torch7 network file in a separate process: a script that reads a request from stdin and writes the result to stdout.

The request is JSON: ``source``, ``params``, and the limits ``memory`` (bytes), ``instructions`` and ``seconds`` (CPU time).
The answer is JSON: ``error``, or ``root``, ``objects`` and ``log``; see multiseg_torch.torch7.lua. The file's output goes to
stderr. The file has no access to Python objects. Of installed packages, only lupa is imported.
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
        number, typename, is_tensor = describe(thing)
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


def main() -> None:
    """Answer one request."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        import lupa.lua51 as lupa  # Torch7's Lua version: 64/2 is 32, unpack and loadstring exist
    except ImportError as error:
        answer(out, {"missing": str(error)})
    # limit of the whole process, in addition to that of Lua's allocator
    resource.setrlimit(resource.RLIMIT_AS, (4 * request["memory"] + (1 << 30),) * 2)
    watch = Watch(request["seconds"], lambda content: answer(out, content))
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
