-- The torch of a network file: tensors, whose operations are recorded and replayed by PyTorch afterwards, and storages.
--
-- Arguments: a function that raises an error at the file's line, and one that returns this line. Returns: a table of what the
-- other files of the sandbox need (classes.lua, nn.lua, nngraph.lua).

local fail, where = ...
local type = type  -- nngraph.lua replaces the file's
local log, ids, objects = {}, {}, 0  -- ids: of exported tables

local function id(thing)
   if not ids[thing] then
      objects = objects + 1
      ids[thing] = objects
   end
   return ids[thing]
end

local function whole(value) return type(value) == 'number' and value % 1 == 0 end

---------------------------------------------------------------------------------------------------------------- storage

local Storage = {__typename = 'torch.LongStorage'}
Storage.__index = Storage
function Storage:size() return #self end
function Storage:totable() return {unpack(self)} end
function Storage:apply(f) for i = 1, #self do self[i] = f(self[i]) or self[i] end return self end
local function storage(values) return setmetatable(values, Storage) end

----------------------------------------------------------------------------------------------------------------- tensor

local Tensor = {__typename = 'torch.FloatTensor'}
local sizes = setmetatable({}, {__mode = 'k'})  -- by tensor
local rows = setmetatable({}, {__mode = 'k'})  -- by tensor: rows already selected, reused by later accesses

local function tensor(size, op, ...)
   local made = setmetatable({}, Tensor)
   sizes[made] = size
   log[#log + 1] = {op, id(made), ...}
   return made
end

local function is_tensor(value) return sizes[value] ~= nil end

-- The elements of small tensors whose values a file states, which it can read: {values = list, first = offset}. A row shares the
-- list of its tensor. `random` marks a list whose values are not known any more.
local SMALL = 4096
local known = setmetatable({}, {__mode = 'k'})

local function remember(made, values) if #values <= SMALL then known[made] = {values = values, first = 0} end end

local function forget(self) if known[self] then known[self].values.random = true end end

local function product(size)
   local elements = 1
   for _, n in ipairs(size) do elements = elements * n end
   return elements
end

local function sizes_of(what, first, ...)
   local given = type(first) == 'table' and first or {first, ...}
   for _, n in ipairs(given) do
      if not whole(n) or n < 1 then fail(what .. ': sizes must be whole numbers from 1, got ' .. tostring(n)) end
   end
   return {unpack(given)}
end

local function row(self, index)
   local size = sizes[self]
   if not whole(index) or index < 1 or index > size[1] then
      fail('index ' .. tostring(index) .. ' is outside a tensor of ' .. table.concat(size, 'x'))
   end
   local own = known[self]
   if #size == 1 then
      local value = own and not own.values.random and own.values[own.first + index]
      if not value then fail('the elements of a tensor can be read only where the file states their values') end
      return value
   end
   local selected = rows[self] or {}
   rows[self] = selected
   if not selected[index] then
      local made = tensor({unpack(size, 2)}, 'select', id(self), index)
      selected[index] = made
      if own then known[made] = {values = own.values, first = own.first + (index - 1) * product(sizes[made])} end
   end
   return selected[index]
end

function Tensor.__index(self, key)
   if type(key) == 'number' then return row(self, key) end
   return Tensor[key]
end

function Tensor.__newindex(self, key, value)
   if type(key) ~= 'number' then fail('the index of a tensor must be a whole number') end
   if type(value) == 'number' and #sizes[self] == 1 then
      if not whole(key) or key < 1 or key > sizes[self][1] then fail('index ' .. key .. ' is outside the tensor') end
      if known[self] then known[self].values[known[self].first + key] = value end
      local last = log[#log]
      if last[1] == 'set' and last[2] == id(self) then
         last[#last + 1], last[#last + 2] = key, value
      else
         log[#log + 1] = {'set', id(self), key, value}
      end
   elseif type(value) == 'number' then
      row(self, key):fill(value)
   else
      row(self, key):copy(value)
   end
end

-- in-place operations (fill, normal, ...) with numeric arguments and their defaults; `change` computes a known element
local function in_place(name, change, ...)
   local defaults = {...}
   Tensor[name] = function(self, ...)
      local given = {...}
      for i = 1, math.max(#defaults, #given) do
         if given[i] == nil then given[i] = defaults[i] end
         if type(given[i]) ~= 'number' then
            fail('tensor:' .. name .. ' takes numbers, got ' .. type(given[i]))
         end
      end
      log[#log + 1] = {name, id(self), unpack(given)}
      local own = known[self]
      if own and not change then forget(self) end
      for i = 1, own and change and product(sizes[self]) or 0 do
         own.values[own.first + i] = change(own.values[own.first + i], given[1])
      end
      return self
   end
end
in_place('fill', function(_, value) return value end, false)
in_place('zero', function() return 0 end)
in_place('normal', nil, 0, 1)
in_place('uniform', nil, 0, 1)
in_place('mul', function(value, factor) return value * factor end, false)
in_place('div', function(value, divisor) return value / divisor end, false)
in_place('add', function(value, summand) return value + summand end, false)

function Tensor:copy(other)
   if not is_tensor(other) then fail('tensor:copy takes a tensor, got ' .. type(other)) end
   if product(sizes[self]) ~= product(sizes[other]) then
      fail('tensor:copy: ' .. table.concat(sizes[other], 'x') .. ' does not fit ' .. table.concat(sizes[self], 'x'))
   end
   log[#log + 1] = {'copy', id(self), id(other)}
   forget(self)
   return self
end

function Tensor:size(dimension)
   if dimension then return sizes[self][dimension] end
   return storage({unpack(sizes[self])})
end
function Tensor:dim() return #sizes[self] end
function Tensor:nElement() return product(sizes[self]) end
Tensor.nDimension, Tensor.numel = Tensor.dim, Tensor.nElement

function Tensor:view(...)
   local size = sizes_of('tensor:view', ...)
   if product(size) ~= product(sizes[self]) then fail('tensor:view: the number of elements differs') end
   local made = tensor(size, 'view', id(self), size)
   known[made] = known[self]
   return made
end
function Tensor:select(dimension, index)
   if dimension ~= 1 then fail('tensor:select is supported along dimension 1 only') end
   return row(self, index)
end
function Tensor:clone()
   local made, own = tensor({unpack(sizes[self])}, 'clone', id(self)), known[self]
   if own and not own.values.random then remember(made, {unpack(own.values, own.first + 1, own.first + product(sizes[self]))}) end
   return made
end
for _, name in ipairs({'float', 'double', 'cuda', 'type', 'contiguous'}) do
   Tensor[name] = function(self) return self end
end

local function from_table(values)
   local size, flat, level = {}, {}, values
   while type(level) == 'table' do
      size[#size + 1] = #level
      level = level[1]
   end
   local function collect(value, axis)
      if axis > #size then
         if type(value) ~= 'number' then fail('torch.Tensor: its elements must be numbers') end
         flat[#flat + 1] = value
         return
      end
      if type(value) ~= 'table' or #value ~= size[axis] then fail('torch.Tensor: rows differ in length') end
      for _, each in ipairs(value) do collect(each, axis + 1) end
   end
   collect(values, 1)
   local made = tensor(size, 'values', size, flat)
   remember(made, {unpack(flat, 1, math.min(#flat, SMALL + 1))})
   return made
end

torch = {}

local function new_tensor(...)
   local first = ...
   if first == nil then return tensor({0}, 'new', {0}) end
   if is_tensor(first) then return first:clone() end
   if type(first) == 'table' and getmetatable(first) ~= Storage then return from_table(first) end
   local size = sizes_of('torch.Tensor', ...)
   local made, values = tensor(size, 'new', size), {}
   for i = 1, math.min(product(size), SMALL + 1) do values[i] = 0 end  -- as the replay creates them
   remember(made, values)
   return made
end
for _, name in ipairs({'Tensor', 'FloatTensor', 'DoubleTensor', 'CudaTensor', 'LongTensor', 'IntTensor'}) do torch[name] = new_tensor end
function torch.zeros(...) return new_tensor(...):zero() end
function torch.ones(...) return new_tensor(...):fill(1) end
function torch.rand(...) return new_tensor(...):uniform() end
function torch.randn(...) return new_tensor(...):normal() end
function torch.LongStorage(values) return storage(type(values) == 'table' and {unpack(values)} or {}) end
function torch.isTensor(value) return is_tensor(value) end
function torch.typename(value)
   if type(value) ~= 'table' then return nil end
   return value.__typename
end
function torch.type(value) return torch.typename(value) or type(value) end
function torch.getdefaulttensortype() return 'torch.FloatTensor' end
-- no-ops: the job's settings determine these
for _, name in ipairs({'setdefaulttensortype', 'manualSeed', 'setnumthreads', 'seed'}) do torch[name] = function() end end
function torch.getnumthreads() return 1 end
for _, name in ipairs({'load', 'save'}) do
   torch[name] = function() fail('torch.' .. name .. ' is not provided: a network file must not read or write files') end
end

return {fail = fail, where = where, log = log, id = id, whole = whole, storage = storage, Storage = Storage, tensor = tensor,
        is_tensor = is_tensor, sizes = sizes, product = product}
