-- The classes of modules: nn.Module and nn.Container, the definition of Torch7's modules (nn.lua), and torch.class.
--
-- A class inherits by the __index of its metatable, so that what a file changes in a class applies to those that derive from it.
-- Arguments: the table of tensors.lua, which gets fields for nn.lua and nngraph.lua.

local kit = ...
local fail, where, log, id, whole = kit.fail, kit.where, kit.log, kit.id, kit.whole
local tensor, is_tensor, sizes, product, Storage = kit.tensor, kit.is_tensor, kit.sizes, kit.product, kit.Storage
local type = type
local owners = {}  -- modules with parameters
local classes = {}  -- by their names
local cudnn_modules = {}  -- cudnn modules whose constructors differ from nn's
nn = setmetatable({}, {cudnn = cudnn_modules})

local Module = {__typename = 'nn.Module', __module = true, __abstract = true}
local function is_module(value) return type(value) == 'table' and value.__module == true end

-- Prepares a table as the metatable of a class; `parent` is another one, or nil
local function prepare(class, parent)
   class.__index = class
   setmetatable(class, {__index = parent})
   if class.__module then  -- metamethods are not inherited
      class.__call = function(self, ...) return kit.call(self, ...) end
      class.__unm = function(self) return kit.call(self) end
      class.__sub = function(left, right) return kit.call(right, left) end
   end
   class.__tostring = function(self) return self.__tostring__ and self:__tostring__() or self.__typename end
   return class
end

-- The function of a class that makes its objects; it has the fields of the class
local function constructor(class)
   return setmetatable({}, {
      __index = class,
      __newindex = function(_, key, value) class[key] = value end,
      __call = function(_, ...)
         local made = setmetatable({}, class)
         if class.__module then made.line = tonumber(where():match(':(%d+)$')) end
         if class.__init then class.__init(made, ...) end
         return made
      end,
   })
end

-- Sets fields from a constructor's arguments. `spec` lists their names in order: `name` is a required number, `name=default`
-- an optional one (the default is a number, true, false, or an earlier name), `name?` an optional value of any type.
local function fields(class, spec, given, found)
   local i = 0
   for word in spec:gmatch('%S+') do
      i = i + 1
      local name, mark, default = word:match('^(%w[%w_]*)([=?]?)(.*)$')
      local value = given[i]
      if value == nil and mark == '=' then
         value = tonumber(default)
         if default == 'true' or default == 'false' then value = default == 'true' end
         if value == nil then value = found[default] end
      end
      local flag = default == 'true' or default == 'false'
      if mark ~= '?' and flag and type(value) == 'number' then value = value ~= 0 end
      if mark ~= '?' and not flag and (type(value) ~= 'number' or value ~= value) then
         fail(class .. ': ' .. name .. ' must be a number, got ' .. tostring(value) .. '; it takes (' ..
              spec:gsub('%s+', ', ') .. ')')
      end
      if mark ~= '?' and flag and type(value) ~= 'boolean' then
         fail(class .. ': ' .. name .. ' must be true or false, got ' .. tostring(value))
      end
      found[name] = value
   end
end

local function parameter(module, name, size)
   for _, n in ipairs(size) do
      if not whole(n) or n < 1 then
         fail(module.__typename .. ': its ' .. name .. ' would be ' .. table.concat(size, 'x'))
      end
   end
   if owners[#owners] ~= module then owners[#owners + 1] = module end
   rawset(module, name, tensor(size, 'parameter', id(module), name))
end

-- options: weight, bias, ... = function(module) return sizes end; init = function(module, ...); methods; container; parent (a
-- class, Module by default). `package` is the table in which the class is stored, nn by default
local function define(name, spec, options, package)
   options = options or {}
   local class = {__typename = 'nn.' .. name, __module = true, __builtin = true, __abstract = options.abstract or false}
   for key, method in pairs(options.methods or {}) do class[key] = method end
   prepare(class, options.container and name ~= 'Container' and classes['nn.Container'] or Module)
   function class.__init(made, ...)
      if options.container then made.modules = {} end
      if options.init then options.init(made, ...) else fields(class.__typename, spec, {...}, made) end
      for _, part in ipairs({'weight', 'bias', 'running_mean', 'running_var'}) do
         local size = options[part] and options[part](made)
         if size then parameter(made, part, size) end
      end
   end
   local own = package or nn
   own[name] = constructor(class)
   classes[(package and 'cudnn.' or 'nn.') .. name] = class
end

function Module:add(child)
   if not is_module(child) then
      fail(self.__typename .. ':add needs a module, got ' .. (child == nil and 'nil' or torch.type(child)))
   end
   if not self.modules then fail(self.__typename .. ' is not a container; modules can be added to containers only') end
   self.modules[#self.modules + 1] = child
   return self
end
function Module:insert(child, index)
   if not is_module(child) then fail(self.__typename .. ':insert needs a module') end
   index = index or #self.modules + 1
   if index < 1 or index > #self.modules + 1 then fail(self.__typename .. ':insert: index ' .. index .. ' is out of range') end
   table.insert(self.modules, index, child)
   return self
end
function Module:remove(index)
   index = index or #self.modules
   if not self.modules[index] then fail(self.__typename .. ':remove: index ' .. index .. ' is out of range') end
   table.remove(self.modules, index)
end
function Module:get(index)
   if index < 0 then index = #self.modules + index + 1 end
   if not self.modules[index] then
      fail(self.__typename .. ':get: index ' .. tostring(index) .. ' is out of range; it has ' .. #self.modules .. ' modules')
   end
   return self.modules[index]
end
function Module:size() return #self.modules end
function Module:apply(f)
   f(self)
   for _, child in ipairs(self.modules or {}) do child:apply(f) end
   return self
end
function Module:replace(f)
   local made = f(self)
   for i, child in ipairs(made.modules or {}) do made.modules[i] = child:replace(f) end
   return made
end
function Module:listModules()
   local found = {}
   self:apply(function(module) found[#found + 1] = module end)
   return found
end
function Module:findModules(typename, container)
   local found, containers = {}, {}
   typename = tostring(typename):gsub('^cudnn%.', 'nn.')
   local function visit(module, parent)
      if module.__typename == typename then
         found[#found + 1] = module
         containers[#containers + 1] = parent
      end
      for _, child in ipairs(module.modules or {}) do visit(child, module) end
   end
   visit(self, container or self)
   return found, containers
end
function Module:parameters()
   local weights, gradients = {}, {}
   self:apply(function(module)
      for _, part in ipairs({'weight', 'bias'}) do
         local each = rawget(module, part)
         if each then
            weights[#weights + 1] = each
            gradients[#gradients + 1] = each
         end
      end
   end)
   return weights, gradients
end
function Module:getParameters()
   local weights, members, elements = self:parameters(), {}, 0
   if #weights == 0 then fail(self.__typename .. ':getParameters: it has no parameters') end
   for i, each in ipairs(weights) do
      members[i], elements = id(each), elements + product(sizes[each])
   end
   local flat = tensor({elements}, 'flat', members)
   return flat, flat
end
function Module:reset(deviation)
   if deviation ~= nil and type(deviation) ~= 'number' then fail(self.__typename .. ':reset needs a number') end
   self:apply(function(module) log[#log + 1] = {'reset', id(module), deviation} end)
   return self
end
function Module:noBias()
   self.bias = nil
   return self
end
function Module:clone(...)
   if select('#', ...) > 0 then fail(self.__typename .. ':clone: sharing parameters between modules is not supported') end
   local copies = {}
   local function copy(value)
      if is_tensor(value) or type(value) ~= 'table' or getmetatable(value) == Storage then return value end
      if copies[value] then return copies[value] end
      local made = setmetatable({}, getmetatable(value))
      copies[value] = made
      for key, each in pairs(value) do
         if is_tensor(each) and is_module(value) then
            parameter(made, key, {unpack(sizes[each])})
            made[key]:copy(each)
         else
            rawset(made, key, copy(each))
         end
      end
      return made
   end
   return copy(self)
end
local same = {'float', 'double', 'cuda', 'type', 'training', 'evaluate', 'clearState', 'zeroGradParameters', 'setMode',
              'fastest', 'resetMode', 'threads', 'syncParameters'}
for _, name in ipairs(same) do Module[name] = function(self) return self end end
for _, name in ipairs({'updateOutput', 'forward', 'updateGradInput', 'backward', 'accGradParameters'}) do
   Module[name] = function(self, ...) return kit.compute(self, name, ...) end
end
function Module:share()
   fail(self.__typename .. ':share is not supported: modules must not share parameters')
end
function Module:__init() end

classes['nn.Module'] = prepare(Module)
nn.Module = constructor(Module)
define('Container', '', {container = true, abstract = true})
define('Criterion', '', {abstract = true})

-- Defines a class, as Torch7's torch.class: returns it and its parent; the constructor is stored under the name
function torch.class(name, parent_name, package)
   if type(name) ~= 'string' then fail('torch.class needs the name of a class') end
   local parent = parent_name and (classes[parent_name] or classes[parent_name:gsub('^cudnn%.', 'nn.')])
   if parent_name and not parent then
      fail('torch.class: ' .. name .. ' derives from ' .. tostring(parent_name) .. ', which is not supported')
   end
   local class = {__typename = name, __module = parent and parent.__module}
   classes[name] = prepare(class, parent)
   local owner, short = name:match('^(.*)%.([^.]+)$')
   local place = type(package) == 'table' and package or _G
   for part in (package and '' or owner or ''):gmatch('[^.]+') do
      place = place[part]
      if type(place) ~= 'table' then fail('torch.class: ' .. name .. ' belongs to the table ' .. owner .. ', which does not exist') end
   end
   rawset(place, short or name, constructor(class))
   return class, parent
end
function torch.getmetatable(name) return classes[name] end
function torch.isTypeOf(value, name)
   local wanted = type(name) == 'string' and classes[name] or name
   local class = type(value) == 'table' and getmetatable(value)
   while class do
      if class == wanted or class.__typename == name then return true end
      class = (getmetatable(class) or {}).__index
   end
   return false
end

-- The class of Torch7 whose behaviour a module has, apart from methods that its own class replaces
local function base(module)
   local class = getmetatable(module)
   while class and not rawget(class, '__builtin') do class = (getmetatable(class) or {}).__index end
   return class or Module
end

kit.Module, kit.define, kit.fields, kit.is_module, kit.base = Module, define, fields, is_module, base
kit.classes, kit.cudnn, kit.owners, kit.prepare, kit.constructor = classes, cudnn_modules, owners, prepare, constructor
