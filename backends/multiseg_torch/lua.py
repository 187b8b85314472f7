"""Torch7 network files: run by an embedded Lua, in a sandbox, over an ``nn`` that only notes what is built.

The chunk sees no os, io, debug, package or file loading, and no Python object at all: each ``nn`` constructor makes a Lua
table of its name and arguments, and the tables are turned into PyTorch modules afterwards. Memory and the number of
instructions are bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from multiseg.errors import ModelError

MEMORY_BYTES = 256 * 2**20
INSTRUCTIONS = 200_000_000  # a few seconds

CHUNK = "network"  # its name in Lua's messages; Lua cuts long ones

PRELUDE = """
local known, limit = ...
local count, step = 0, 1000000
local function check()
   if count >= limit then error('runs too long: is there an endless loop?', 0) end
end
debug.sethook(function() count = count + step; check() end, '', step)
-- a chunk must not catch that
local function checked(caught) return function(...) return (function(...) check(); return ... end)(caught(...)) end end
pcall, xpcall = checked(pcall), checked(xpcall)
-- coroutine too: a hook does not reach into one
os, io, debug, package, dofile, loadfile, load, loadstring, python, collectgarbage, coroutine = nil
function require(name)
   if name == 'nn' or name == 'torch' then return _G[name] end
   error("module '" .. tostring(name) .. "' is not provided", 2)
end
local Module = {}
Module.__index = Module
function Module:add(child) self.children[#self.children + 1] = child; return self end
local function unknown(_, name)
   error('nn.' .. tostring(name) .. ' is not supported; known are: ' .. table.concat(known, ', '), 2)
end
nn = setmetatable({}, {__index = unknown})
for _, name in ipairs(known) do
   nn[name] = function(...) return setmetatable({kind = name, arguments = {...}, children = {}}, Module) end
end
torch = {}
"""


def run(path: str, params: dict[str, Any]) -> dict[str, Any]:
    """The table that the file's function returns for ``params``, with PyTorch modules in it.

    Raises ModelError naming file and line: Lua errors, unknown modules, wrong arguments, a chunk that runs on or away.
    """
    try:
        import lupa
    except ImportError as error:
        raise ModelError(f"{path}: Lua files need lupa; install it with `pip install 'multiseg[torch]'`") from error
    try:
        source = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    lua = lupa.LuaRuntime(register_eval=False, register_builtins=False, max_memory=MEMORY_BYTES, encoding="utf-8")
    try:
        # compiled while `load` is still there; text only, as bytecode can break out of any sandbox
        chunk = lua.eval("function(source, name) return load(source, name, 't') end")(source, f"={CHUNK}")
        function, message = chunk if isinstance(chunk, tuple) else (chunk, None)
        if function is None:
            raise ModelError(_plain(path, str(message)))
        lua.execute(PRELUDE, lua.table_from(sorted(MODULES)), INSTRUCTIONS)
        make = function()
        if lupa.lua_type(make) != "function":
            raise ModelError(
                f"{path}: returns {lupa.lua_type(make) or type(make).__name__}; it must `return function(params) ... end`"
            )
        shape = lua.table_from(params["inputShape"])
        made = make(lua.table_from({"ngpus": params["ngpus"], "inputShape": shape}))
    except (lupa.LuaMemoryError, MemoryError) as error:
        raise ModelError(f"{path}: takes more than {MEMORY_BYTES >> 20} MiB of memory") from error
    except lupa.LuaError as error:
        raise ModelError(_plain(path, str(error))) from error
    if lupa.lua_type(made) != "table":
        raise ModelError(f"{path}: its function returns {type(made).__name__}; it must return a table with `model`")
    return {
        key: _build(path, value) if lupa.lua_type(value) == "table" else _whole(value) for key, value in made.items()
    }


def _whole(value: Any) -> Any:
    """Whole numbers as int: Torch7's Lua knows no others, today's divides 64/2 to 32.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(path: str, message: str) -> str:
    """The first line of a message of Lua's, with the file's whole path where Lua writes the chunk's name."""
    first = (message.splitlines() or [""])[0]
    return path + first[len(CHUNK) :] if first.startswith(f"{CHUNK}:") else f"{path}: {first}"


def _build(path: str, table: Any) -> Any:
    kind = table["kind"]
    if kind not in MODULES or table["arguments"] is None:
        return dict(table.items())
    arguments = [_whole(value) for value in table["arguments"].values()]
    children = [_build(path, child) for child in table["children"].values()]
    try:
        return MODULES[kind](*children) if kind == "Sequential" else MODULES[kind](*arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        given = ", ".join(map(str, arguments))
        raise ModelError(f"{path}: nn.{kind}({given}): {error}") from error


def _start(module: nn.Module, fan_in: int) -> nn.Module:
    """Torch7's start values: weights and biases uniform within 1/sqrt(fan in) (each module's ``reset``)."""
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5)
    return module


def _convolution(
    planes_in: int,
    planes_out: int,
    kw: int,
    kh: int,
    dw: int = 1,
    dh: int = 1,
    pad_w: int = 0,
    pad_h: int | None = None,
) -> nn.Module:
    pad = (pad_w if pad_h is None else pad_h, pad_w)
    return _start(nn.Conv2d(planes_in, planes_out, (kh, kw), (dh, dw), pad), planes_in * kw * kh)


def _full_convolution(
    planes_in: int, planes_out: int, kw: int, kh: int, dw: int = 1, dh: int = 1, pad_w: int = 0, pad_h: int = 0,
    adj_w: int = 0, adj_h: int = 0,
) -> nn.Module:  # fmt: skip
    module = nn.ConvTranspose2d(planes_in, planes_out, (kh, kw), (dh, dw), (pad_h, pad_w), (adj_h, adj_w))
    return _start(module, planes_in * kw * kh)


MODULES: dict[str, Callable[..., nn.Module]] = {
    "Sequential": nn.Sequential,
    "SpatialConvolution": _convolution,
    "SpatialConvolutionMM": _convolution,
    "SpatialFullConvolution": _full_convolution,
    "ReLU": lambda inplace=False: nn.ReLU(bool(inplace)),
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "SmoothL1Criterion": nn.SmoothL1Loss,
    "AbsCriterion": nn.L1Loss,
    "MSECriterion": nn.MSELoss,
}
