-- Restricts what a network file can access. Runs before it, in the same Lua state; locals hide this script's own state.
--
-- Arguments: the maximum number of instructions, a function that records the current line, and one that returns another file.

local limit, note, another = ...
local getinfo, sethook, stderr, guarded = debug.getinfo, debug.sethook, io.stderr, xpcall
local opaque = newproxy  -- the global is removed below
local match = string.match  -- replaced below by one that calls where
local step, count, depth, position = 1, 0, 0, 'network'

-- returns 'network:line' of the file's innermost function
local function where()
   for level = 2, 50 do
      local info = getinfo(level, 'Sl')
      if not info then break end
      local name = match(info.source, '^=(.*)$')
      if (name == 'network' or (name and match(name, '%.lua$'))) and info.currentline > 0 then
         return name .. ':' .. info.currentline
      end
   end
   return position
end

local function fail(message) error(where() .. ': ' .. message, 0) end

local function check()
   if count >= limit then fail('runs too long; check it for an endless loop') end
end

-- runs at every instruction at first: a file of a few lines can allocate all memory
local function hook()
   count = count + step
   position = where()
   note(position)
   check()
   if step == 1 and count > 20000 then
      step = 1000
      sethook(hook, '', step)
   end
end

-- a file must not catch the instruction limit's error
local function checked(caught)
   return function(...)
      depth = depth + 1
      return (function(...) depth = depth - 1; check(); return ... end)(caught(...))
   end
end
pcall, xpcall = checked(pcall), checked(xpcall)

-- hooks do not run inside these C functions, whose time grows polynomially with the size of their arguments
local function noted(call)
   return function(...)
      note(where())
      return call(...)
   end
end
local gmatch = string.gmatch
for _, name in ipairs({'find', 'match', 'gsub', 'rep', 'format'}) do string[name] = noted(string[name]) end
string.gmatch = function(...) return noted(gmatch(...)) end
string.gfind, string.dump = nil
table.concat, table.sort = noted(table.concat), noted(table.sort)

-- Lua 5.1 counts in C integers, which wrap: unpack then writes beyond its stack. No network file needs such numbers.
local most_values, most_bytes, most_printed = 8000, 64 * 2^20, 2^20
local unpack_all, join, rep, length, format, max = unpack, table.concat, string.rep, string.len, string.format, math.max

-- fails if the elements from first to last of a list are more than a function may take
local function bounded(name, list, first, last, most)
   if type(list) ~= 'table' then return end  -- the function itself reports this, and what is no number
   first, last = tonumber(first == nil and 1 or first), tonumber(last == nil and #list or last)
   if not first or not last then return end
   if not (first > -2^31 and last < 2^31 - 1 and last - first < most) then
      fail(format('%s: elements %.0f to %.0f of a table; at most %.0f can be taken at once', name, first, last, most))
   end
end

function unpack(list, first, last)
   bounded('unpack', list, first, last, most_values)
   return unpack_all(list, first, last)
end

function table.concat(list, separator, first, last)
   bounded('table.concat', list, first, last, most_bytes)
   return join(list, separator, first, last)
end

function string.rep(text, count)
   local number = tonumber(count)
   if number and type(text) == 'string' and not (max(length(text), 1) * number <= most_bytes) then
      fail(format('string.rep: %.0f times %d bytes; at most %.0f bytes can be made', number, length(text), most_bytes))
   end
   return rep(text, count)
end

-- Torch7's LuaJIT is built with the functions of Lua 5.2
table.unpack, table.pack = unpack, function(...) return {n = select('#', ...), ...} end

os, io, debug, package, python, module, coroutine, newproxy, gcinfo, getfenv, setfenv = nil
dofile, loadfile, load, loadstring = nil
function collectgarbage() return 0 end
local printed = 0
function print(...)
   local line = {}
   for i = 1, select('#', ...) do line[i] = tostring((select(i, ...))) end
   local text = join(line, '\t')
   printed = printed + length(text) + 1
   if printed > most_printed then fail(format('prints more than %.0f bytes', most_printed)) end
   stderr:write(text, '\n')
end

-- CUDA's packages: missing if required within pcall, otherwise aliases of nn
local insisted = {cudnn = true, cunn = true, cutorch = true, ccn2 = true}
-- packages that network files require for programs around the network: they load, and what they contain is missing
local empty = {image = true, optim = true, paths = true, xlua = true, sys = true, gnuplot = true, torchnet = true}
local provided = {nn = 'nn', torch = 'torch', nngraph = 'nngraph', graph = 'graph', nnx = 'nn', dpnn = 'nn', rnn = 'nn'}  -- globals

local function aliases()
   return setmetatable({version = 8000}, {__index = function(_, name)
      return getmetatable(nn).cudnn[name] or nn[name]
   end})
end

local function nothing(package)
   local fields = {}
   if package == 'paths' then
      fields = {
         dofile = function(name) return dofile(name) end,
         concat = function(...) return (table.concat({...}, '/'):gsub('//+', '/')) end,
         basename = function(name) return name:match('[^/]*$') end,
         dirname = function(name) return name:match('^(.*)/') or '.' end,
         thisfile = function(name) return name or '.' end,
      }
   end
   return setmetatable(fields, {__index = function(_, name)
      fail(package .. '.' .. tostring(name) .. ' is not provided while a network file is loaded')
   end})
end

-- runs another file in the folder once; a second time returns its value again for a module
local loaded, running = {}, {}
local function run_file(name, is_module)
   local found, chunk, file = pcall(another, name, is_module)
   if not found or chunk == nil and file == nil then return false end
   if chunk == nil then error(file, 0) end
   if is_module and loaded[file] ~= nil then return true, loaded[file] end
   if running[file] then fail(file .. ' requires itself') end
   running[file] = true
   local value = chunk()
   running[file] = nil
   if is_module then loaded[file] = value == nil and true or value end
   return true, value
end

function dofile(name)
   local found, value = run_file(name, false)
   if not found then fail("there is no file '" .. tostring(name) .. "' beside the network file") end
   return value
end

function require(name)
   if provided[name] then return _G[provided[name]] end
   if empty[name] then
      if not rawget(_G, name) then _G[name] = nothing(name) end
      return _G[name]
   end
   if insisted[name] and depth == 0 then
      if name == 'cutorch' then
         cutorch = {getDeviceCount = function() return 0 end}
         for _, done in ipairs({'setDevice', 'manualSeed', 'manualSeedAll', 'synchronize'}) do
            cutorch[done] = function() end
         end
      elseif name == 'cudnn' then
         cudnn = rawget(_G, 'cudnn') or aliases()
      end
      return rawget(_G, name)
   end
   local found, value = run_file(tostring(name), true)
   if found then return value end
   fail("module '" .. tostring(name) .. "' is not provided, nor a file beside the network file; it may require nn and torch")
end

-- the program that loads a network file has often required these before
setmetatable(_G, {__index = function(_, name)
   if name == 'paths' then return require('paths') end
   if name == 'nnlib' then return cudnn end  -- nn or cudnn, in the programs of the stacked hourglass network
   if name == 'makeDataParallel' then return function(model) return model end end  -- of imagenet-multiGPU.torch
   if name ~= 'cudnn' then return nil end
   cudnn = aliases()
   return cudnn
end})

-- calls the file; returns its result, or nil, the message with the line, and whether memory ran out
local function run(f, ...)
   sethook(hook, '', step)
   local given, arguments = select('#', ...), {...}
   local function locate(message)
      message = tostring(message)
      return (message:match('^network:%d') or message:match('^%S+%.lua:%d')) and message or where() .. ': ' .. message
   end
   local done, made = guarded(function() return f(unpack(arguments, 1, given)) end, locate)
   if done then return made end
   if made == 'not enough memory' then return nil, position, true end
   return nil, made, false
end

-- Without a name: the names of global functions that were not there at the first call. With one: the function or table of that
-- name, with dots, among the globals or in what the file returned, else the function that it returned.
local before
local function names(name, made)
   if name == nil then
      local found = {}
      for key, value in pairs(_G) do
         if type(key) == 'string' and type(value) == 'function' and before and not before[key] then found[#found + 1] = key end
      end
      if not before then
         before = {}
         for key in pairs(_G) do before[key] = true end
      end
      table.sort(found)
      return found
   end
   local function field(table)
      local value = table
      for part in name:gmatch('[^.]+') do
         if type(value) ~= 'table' then return nil end
         value = rawget(value, part)
      end
      return value
   end
   local value = field(_G)
   if value == nil and type(made) == 'table' and rawget(made, '__typename') == nil then value = field(made) end
   if value == nil and type(made) == 'function' then value = made end
   return value
end

return fail, where, run, names, function() return opaque(true) end
