-- The nn and torch of a network file: they record the modules that are built, with the fields of Torch7's objects, and the
-- operations on tensors. PyTorch modules and tensors are created from these records afterwards.
--
-- Arguments: a function that raises an error at the file's line, and one that returns this line. Returns: a function that
-- describes a table, the log of operations, the modules with parameters, and the constructor of a storage.

local fail, where = ...
local log, ids, objects, owners = {}, {}, 0, {}  -- ids: of exported tables; owners: modules with parameters

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
   if #size == 1 then fail('elements of a tensor can be set but not read while a network file is loaded') end
   local known = rows[self] or {}
   rows[self] = known
   known[index] = known[index] or tensor({unpack(size, 2)}, 'select', id(self), index)
   return known[index]
end

function Tensor.__index(self, key)
   if type(key) == 'number' then return row(self, key) end
   return Tensor[key]
end

function Tensor.__newindex(self, key, value)
   if type(key) ~= 'number' then fail('the index of a tensor must be a whole number') end
   if type(value) == 'number' and #sizes[self] == 1 then
      if not whole(key) or key < 1 or key > sizes[self][1] then fail('index ' .. key .. ' is outside the tensor') end
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

-- in-place operations (fill, normal, ...) with numeric arguments and their defaults
local function in_place(name, ...)
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
      return self
   end
end
in_place('fill', false)
in_place('zero')
in_place('normal', 0, 1)
in_place('uniform', 0, 1)
in_place('mul', false)
in_place('div', false)
in_place('add', false)

function Tensor:copy(other)
   if not is_tensor(other) then fail('tensor:copy takes a tensor, got ' .. type(other)) end
   if product(sizes[self]) ~= product(sizes[other]) then
      fail('tensor:copy: ' .. table.concat(sizes[other], 'x') .. ' does not fit ' .. table.concat(sizes[self], 'x'))
   end
   log[#log + 1] = {'copy', id(self), id(other)}
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
   return tensor(size, 'view', id(self), size)
end
function Tensor:select(dimension, index)
   if dimension ~= 1 then fail('tensor:select is supported along dimension 1 only') end
   return row(self, index)
end
function Tensor:clone() return tensor({unpack(sizes[self])}, 'clone', id(self)) end
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
   return tensor(size, 'values', size, flat)
end

torch = {}

local function new_tensor(...)
   local first = ...
   if first == nil then fail('torch.Tensor: an empty tensor is not supported; specify sizes or values') end
   if is_tensor(first) then return first:clone() end
   if type(first) == 'table' and getmetatable(first) ~= Storage then return from_table(first) end
   local size = sizes_of('torch.Tensor', ...)
   return tensor(size, 'new', size)
end
for _, name in ipairs({'Tensor', 'FloatTensor', 'DoubleTensor', 'CudaTensor'}) do torch[name] = new_tensor end
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
function torch.class() fail('defining a module (torch.class) is not supported') end
for _, name in ipairs({'load', 'save'}) do
   torch[name] = function() fail('torch.' .. name .. ' is not provided: a network file must not read or write files') end
end

----------------------------------------------------------------------------------------------------------------- module

local Module = {}
local cudnn_modules = {}  -- cudnn modules whose constructors differ from nn's
nn = setmetatable({}, {cudnn = cudnn_modules})

local function is_module(value) return type(value) == 'table' and value.__module == true end

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

-- options: parameters = {name = function(module) return sizes end}; init = function(module, ...); methods; container.
-- `package` is the table in which the class is stored, nn by default
local function define(name, spec, options, package)
   options = options or {}
   local class = {__typename = 'nn.' .. name, __module = true}
   for key, method in pairs(Module) do class[key] = method end
   for key, method in pairs(options.methods or {}) do class[key] = method end
   class.__index, class.__tostring = class, function(self) return self.__typename end
   local classes = package or nn
   classes[name] = setmetatable({}, {
      __index = class,
      __call = function(_, ...)
         local made = setmetatable({line = tonumber(where():match(':(%d+)$'))}, class)
         if options.container then made.modules = {} end
         if options.init then options.init(made, ...) else fields(class.__typename, spec, {...}, made) end
         for _, part in ipairs({'weight', 'bias', 'running_mean', 'running_var'}) do
            local size = options[part] and options[part](made)
            if size then parameter(made, part, size) end
         end
         return made
      end,
   })
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
for _, name in ipairs({'forward', 'updateOutput', 'backward', 'updateGradInput', 'share'}) do
   Module[name] = function(self) fail(self.__typename .. ':' .. name .. ' is not available while a network file is loaded') end
end

local function container(name, spec) define(name, spec, {container = true}) end
container('Sequential', '')
container('Concat', 'dimension=1')
container('DepthConcat', 'dimension=1')
container('ConcatTable', '')
container('ParallelTable', '')
container('DataParallelTable', 'dimension=1 flattenParams? usenccl?')
define('JoinTable', 'dimension nInputDims?')
define('SelectTable', 'index')
define('NarrowTable', 'offset length=1')
for _, name in ipairs({'FlattenTable', 'Identity', 'Copy', 'Contiguous', 'CMulTable', 'CSubTable', 'CDivTable', 'CMaxTable',
                       'Tanh', 'Sigmoid', 'SoftMax', 'LogSoftMax', 'SpatialSoftMax', 'SpatialLogSoftMax', 'Abs', 'Square',
                       'Sqrt', 'Exp', 'Log'}) do
   define(name, '')
end
define('CAddTable', 'inplace=false')

local dims = {setNumInputDims = function(self, n) self.numInputDims = n; return self end}
local function listed(made, ...)
   made.size = type((...)) == 'table' and {unpack((...))} or {...}
   for _, n in ipairs(made.size) do
      if not whole(n) then fail(made.__typename .. ': sizes must be whole numbers, got ' .. tostring(n)) end
   end
   if #made.size == 0 then fail(made.__typename .. ': needs sizes') end
end
define('View', '', {methods = dims, init = listed})
define('Reshape', '', {init = function(made, ...)
   local given = {...}
   if type(given[#given]) == 'boolean' then made.batchMode = table.remove(given) end
   listed(made, unpack(given))
end})
define('Transpose', '', {methods = dims, init = function(made, ...)
   made.permutations = {...}
   for _, pair in ipairs(made.permutations) do
      if type(pair) ~= 'table' or not whole(pair[1]) or not whole(pair[2]) then
         fail('nn.Transpose: needs pairs of dimensions, as in nn.Transpose({2, 3})')
      end
   end
end})
define('Squeeze', 'dim? numInputDims?', {methods = dims})
define('Unsqueeze', 'pos numInputDims?', {methods = dims})
define('Narrow', 'dimension index length=1')
define('Select', 'dimension index')
define('Padding', 'dim pad nInputDim? value=0 index=1')
define('Mean', 'dimension=1 nInputDims?')
define('Sum', 'dimension=1 nInputDims? sizeAverage=false squeeze=true')
define('Max', 'dimension=1 nInputDims?')
define('Min', 'dimension=1 nInputDims?')

local function planes(made) return {made.nOutputPlane} end
local function convolution(name, spec, package)
   define(name, spec, {bias = planes, weight = function(made)
      return {made.nOutputPlane, made.nInputPlane / (made.groups or 1), made.kH, made.kW}
   end}, package)
end
local kernel = 'nInputPlane nOutputPlane kW kH dW=1 dH=1 padW=0 padH=padW '
-- nn's has no ninth argument, cudnn's ninth is groups (cudnn.torch, SpatialConvolution.lua)
convolution('SpatialConvolution', kernel)
convolution('SpatialConvolution', kernel .. 'groups=1', cudnn_modules)
define('SpatialConvolutionMM', kernel, {bias = planes, weight = function(made)
   return {made.nOutputPlane, made.nInputPlane * made.kH * made.kW}
end})
convolution('SpatialDilatedConvolution', kernel .. 'dilationW=1 dilationH=dilationW')
define('SpatialFullConvolution', 'nInputPlane nOutputPlane kW kH dW=1 dH=1 padW=0 padH=padW adjW=0 adjH=adjW',
       {bias = planes, weight = function(made) return {made.nInputPlane, made.nOutputPlane, made.kH, made.kW} end})
define('Linear', 'inputSize outputSize bias?', {
   weight = function(made) return {made.outputSize, made.inputSize} end,
   bias = function(made)
      if made.bias ~= false then return {made.outputSize} end
      made.bias = nil
   end,
})

local rounding = {
   ceil = function(self) self.ceil_mode = true; return self end,
   floor = function(self) self.ceil_mode = false; return self end,
   setCountIncludePad = function(self) self.count_include_pad = true; return self end,
   setCountExcludePad = function(self) self.count_include_pad = false; return self end,
}
define('SpatialMaxPooling', 'kW kH dW=kW dH=kH padW=0 padH=0', {methods = rounding})
-- nn's stride is 1 by default, cudnn's is the kernel's size (cudnn.torch, Pooling.lua)
define('SpatialAveragePooling', 'kW kH dW=1 dH=1 padW=0 padH=0', {methods = rounding})
define('SpatialAveragePooling', 'kW kH dW=kW dH=kH padW=0 padH=0', {methods = rounding}, cudnn_modules)

local function normalisation(name)
   local function affine(made) return made.affine and {made.nOutput} end
   local function all(made) return {made.nOutput} end
   define(name, 'nOutput eps=1e-5 momentum=0.1 affine=true',
          {weight = affine, bias = affine, running_mean = all, running_var = all})
end
normalisation('BatchNormalization')
normalisation('SpatialBatchNormalization')
define('SpatialCrossMapLRN', 'size alpha=1e-4 beta=0.75 k=1')
define('Dropout', 'p=0.5 v1=false inplace=false')
define('SpatialDropout', 'p=0.5')
define('SpatialUpSamplingNearest', 'scale_factor')
define('SpatialUpSamplingBilinear', '', {init = function(made, first)
   if type(first) == 'table' then
      made.oheight, made.owidth = first.oheight, first.owidth
   else
      fields('nn.SpatialUpSamplingBilinear', 'scale_factor', {first}, made)
   end
end})
for _, name in ipairs({'SpatialZeroPadding', 'SpatialReflectionPadding', 'SpatialReplicationPadding'}) do
   define(name, 'pad_l pad_r=pad_l pad_t=pad_l pad_b=pad_l')
end
define('ReLU', 'inplace=false')
define('ReLU6', 'inplace=false')
define('LeakyReLU', 'negval=0.01 inplace=false')
define('ELU', 'alpha=1 inplace=false')
define('PReLU', 'nOutputPlane=0', {weight = function(made) return {math.max(made.nOutputPlane, 1)} end})
define('Threshold', 'threshold=1e-6 val=0 inplace=false')
define('HardTanh', 'min_val=-1 max_val=1 inplace=false')
define('Clamp', 'min_val max_val')
define('SoftPlus', 'beta=1')
define('MulConstant', 'constant_scalar inplace=false')
define('AddConstant', 'constant_scalar inplace=false')
define('Power', 'pow')

for _, name in ipairs({'SmoothL1Criterion', 'AbsCriterion', 'MSECriterion', 'DistKLDivCriterion'}) do
   define(name, 'sizeAverage=true')
end
for _, name in ipairs({'ClassNLLCriterion', 'CrossEntropyCriterion', 'SpatialClassNLLCriterion',
                       'SpatialCrossEntropyCriterion', 'BCECriterion'}) do
   define(name, 'weights? sizeAverage=true')
end
define('MultiCriterion', '', {
   init = function(made) made.criterions, made.weights = {}, {} end,
   methods = {add = function(self, criterion, weight)
      if not is_module(criterion) then fail('nn.MultiCriterion:add needs a criterion') end
      self.criterions[#self.criterions + 1], self.weights[#self.weights + 1] = criterion, weight or 1
      return self
   end},
})

return function(thing)  -- describes a table: its id, its type, and whether it is a tensor
   local class = getmetatable(thing)
   local typename = class and is_module(thing) and class.__typename or nil
   return id(thing), typename, is_tensor(thing)
end, log, owners, function(values) return storage({unpack(values)}) end
