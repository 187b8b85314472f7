-- Graphs of modules: nngraph (nodes, nn.gModule), and modules whose class computes by calling other modules.
--
-- A graph is an nn.gModule with `modules`, in the order of its forward nodes as in Torch7, which is that of its parameters, and
-- `steps`, one for each forward node: {module = index or nil, inputs = indices of steps, select = index in a table or nil,
-- list = true if the value is a table of the inputs}. The value of the last step is the result; a step without inputs and
-- module is the input.
--
-- Arguments: the table of tensors.lua and classes.lua, and a function that makes an opaque value with a metatable. Adds
-- to the table a function that describes a table for the export.

local kit, opaque = ...
local fail, where, is_module, Module, base = kit.fail, kit.where, kit.is_module, kit.Module, kit.base
local type, pcall, ipairs, pairs = type, pcall, ipairs, pairs

------------------------------------------------------------------------------------------------------------------- nodes

nngraph = {}
local Node = kit.prepare({__typename = 'nngraph.Node'})
nngraph.Node = kit.constructor(Node)
function Node:__init(data)
   self.data, self.children, self.line = data or {}, {}, where():match(':(%d+)$')
   self.data.annotations = self.data.annotations or {}
end
local function is_node(value) return type(value) == 'table' and getmetatable(value) == Node end
function Node:add(child)  -- an input of the node, as in Torch7, where the graph of gradients is built
   self.children[#self.children + 1] = child
   return self
end
function Node:split(count)
   if not kit.whole(count) or count < 1 then fail('node:split needs a number of values') end
   local node = nngraph.Node({nSplitOutputs = count}):add(self)
   local selected = {}
   for i = 1, count do selected[i] = nngraph.Node({selectindex = i}):add(node) end
   return unpack(selected)
end
function Node:annotate(annotations)
   for key, value in pairs(annotations or {}) do self.data.annotations[key] = value end
   return self
end
Node.__sub = function(left, right) return kit.call(right, left) end

-- a module that is called with nodes
function kit.call(module, ...)
   local inputs = ...
   if not is_module(module) then fail('a node can be passed to modules only, got ' .. torch.type(module)) end
   if select('#', ...) > 1 then fail(module.__typename .. ': use {input1, input2} to pass several inputs') end
   if select('#', ...) == 1 and (type(inputs) ~= 'table' or not is_node(inputs) and #inputs == 0) then
      fail(module.__typename .. ' is called with ' .. torch.type(inputs) .. '; a graph needs nodes, such as nn.Identity()()')
   end
   local node = nngraph.Node({module = module})
   for i, child in ipairs(is_node(inputs) and {inputs} or inputs or {}) do
      if not is_node(child) then fail(module.__typename .. ': its input ' .. i .. ' is not a node but ' .. torch.type(child)) end
      node:add(child)
   end
   return node
end

for _, name in ipairs({'annotateNodes', 'setDebug', 'display'}) do nngraph[name] = function() end end
graph = {dot = function() end}

-- The steps of a graph from `input` to `output`, and its modules
local function steps_of(input, output)
   local steps, modules, index = {}, {}, {}
   local function visit(node)
      if index[node] == 0 then fail('the graph has a cycle') end
      if index[node] then return end
      index[node] = 0
      local step = {inputs = {}, select = node.data.selectindex, list = node.list}
      for i, child in ipairs(node.children) do visit(child) step.inputs[i] = index[child] end
      if #node.children == 0 and node ~= input then
         fail('a node without inputs' .. (node.line and ' (line ' .. node.line .. ')' or '') .. ' is not an input of its graph')
      end
      if node.data.module then
         modules[#modules + 1] = node.data.module
         step.module = #modules
      end
      steps[#steps + 1] = step
      index[node] = #steps
   end
   visit(output)
   if not index[input] then fail('the output of a graph does not depend on its input') end
   return steps, modules
end

kit.define('gModule', '', {container = true, init = function(made, inputs, outputs)
   for name, nodes in pairs({inputs = inputs, outputs = outputs}) do
      if type(nodes) ~= 'table' or #nodes == 0 then fail('nn.gModule: its ' .. name .. ' must be a table of nodes') end
      for i, node in ipairs(nodes) do
         if not is_node(node) then fail('nn.gModule: ' .. name .. '[' .. i .. '] is not a node but ' .. torch.type(node)) end
      end
   end
   local input, output = nngraph.Node(), nngraph.Node()
   for i, node in ipairs(inputs) do
      if #node.children > 0 then fail('nn.gModule: inputs[' .. i .. '] has inputs itself') end
      node:add(#inputs == 1 and input or nngraph.Node({selectindex = i}):add(input))
   end
   for _, node in ipairs(outputs) do output:add(node) end
   made.steps, made.modules = steps_of(input, output)
   for _, node in ipairs(inputs) do node.children = {} end  -- for other graphs of the same nodes
end})

------------------------------------------------------------------------------------------ classes that call other modules

-- While a module's updateOutput runs, its input is an opaque value; modules that are called with one add a node
local node_of = setmetatable({}, {__mode = 'k'})
local running = {}  -- the module whose method runs: called, the modules it calls; back, those whose gradient it asks for

local function symbol(node)
   local value = opaque()
   local meta, selected = getmetatable(value), {}
   local function computes(what)
      return function() fail('it computes by itself (' .. what .. '); only calls of other modules are supported') end
   end
   for name, what in pairs({__add = '+', __sub = '-', __mul = '*', __div = '/', __unm = '-', __pow = '^', __mod = '%', __len = '#',
                            __concat = '..', __call = 'a call', __lt = '<', __le = '<=', __newindex = 'an assignment'}) do
      meta[name] = computes(what)
   end
   meta.__index = function(_, key)
      if not kit.whole(key) or key < 1 then computes('input:' .. tostring(key))() end
      selected[key] = selected[key] or symbol(nngraph.Node({selectindex = key}):add(node))
      return selected[key]
   end
   meta.__tostring, meta.__metatable = function() return 'a value that is computed' end, false
   node_of[value] = node
   return value
end

function _G.type(value)
   if node_of[value] then fail('it depends on the type of its input') end
   return type(value)
end

local function to_node(value)
   if node_of[value] then return node_of[value] end
   if type(value) ~= 'table' or getmetatable(value) or #value == 0 then
      fail('its input or result is ' .. torch.type(value) .. ', not a value that modules compute')
   end
   local node = nngraph.Node()
   node.list = true
   for _, item in ipairs(value) do node:add(to_node(item)) end
   return node
end

-- a module as its class of Torch7 has it, for updateOutput of the parent's class
local views = setmetatable({}, {__mode = 'k'})
local function as_base(module)
   if views[module] then return views[module] end
   local class = base(module)
   if rawget(class, '__abstract') or not rawget(module, 'modules') then
      fail('it calls updateOutput of ' .. class.__typename .. ', which is supported for containers only')
   end
   local view = setmetatable({}, class)
   for key, value in pairs(module) do rawset(view, key, value) end
   for _, name in ipairs({'updateOutput', 'forward'}) do rawset(view, name, nil) end
   views[module] = view
   return view
end

-- what a module returns if the file itself calls it, to test it: a value that is not known
local function unknown(module, name)
   local value = opaque()
   local meta = getmetatable(value)
   local function fails()
      fail(module.__typename .. ':' .. name .. ' is not computed while a network file is loaded; its result cannot be used')
   end
   for _, event in ipairs({'add', 'sub', 'mul', 'div', 'unm', 'pow', 'mod', 'len', 'concat', 'call', 'lt', 'le', 'index', 'newindex'}) do
      meta['__' .. event] = fails
   end
   meta.__tostring, meta.__metatable = function() return '(not computed: ' .. module.__typename .. ':' .. name .. ')' end, false
   return value
end

-- updateOutput and the like of Torch7's modules
function kit.compute(module, name, input, gradient)
   if not running.module then return unknown(module, name) end
   if name == 'updateOutput' or name == 'forward' then
      local called = rawequal(module, running.module) and as_base(module) or module
      running.called[module] = (running.called[module] or 0) + 1
      return symbol(nngraph.Node({module = called}):add(to_node(input)))
   end
   running.back[module] = true
   to_node(input)
   to_node(gradient)
   return symbol(nngraph.Node())
end

local function in_module(module, call)
   local outer = running
   running = {module = module, called = {}, back = {}}
   local done, made = pcall(call)
   local own = running
   running = outer
   return done, made, own
end

local function same(a, b)
   if type(a) ~= 'table' or type(b) ~= 'table' then return a == b end
   if getmetatable(a) or getmetatable(b) then return rawequal(a, b) end
   for key in pairs(a) do if not same(a[key], b[key]) then return false end end
   for key in pairs(b) do if a[key] == nil then return false end end
   return true
end

-- Marks what a module's own methods do to gradients: nothing for its parameters, which are not trained then, or something that
-- training does not know (own_gradient)
local function mark_gradient(module, made, called)
   local accumulate = module.accGradParameters
   if accumulate ~= Module.accGradParameters then
      local done, _, own = in_module(module, function() accumulate(module, symbol(nngraph.Node()), symbol(nngraph.Node()), 1) end)
      if done and next(own.back) == nil then made.frozen = true
      elseif not done then made.own_gradient = 'accGradParameters' end
   end
   for _, name in ipairs({'updateGradInput', 'backward'}) do
      local method = module[name]
      if method ~= Module[name] then
         local output = symbol(nngraph.Node())
         local done, gradient, own = in_module(module, function() return method(module, symbol(nngraph.Node()), output) end)
         for child in pairs(called or {}) do done = done and own.back[child] end
         if not done or not node_of[gradient] or called == nil then made.own_gradient = name end
      end
   end
end

local exported = setmetatable({}, {__mode = 'k'})

local function export(module)
   if exported[module] then return exported[module] end
   exported[module] = module
   local name = module.updateOutput ~= Module.updateOutput and 'updateOutput' or 'forward'
   if module[name] == Module[name] then
      if rawget(base(module), '__abstract') and base(module).__typename ~= 'nn.Criterion' then
         fail(module.__typename .. ': has no updateOutput')
      end
      mark_gradient(module, module, nil)
      return module
   end
   local function traced(train)
      local input = nngraph.Node()
      local before = rawget(module, 'train')
      rawset(module, 'train', train)
      local done, made, own = in_module(module, function() return to_node(module[name](module, symbol(input))) end)
      rawset(module, 'train', before)
      if not done then
         local message = tostring(made):gsub('^%S+:%d+: ', '')
         fail(module.__typename .. ': its ' .. name .. ' cannot be followed: ' .. message)
      end
      local output = nngraph.Node():add(made)
      local steps, modules = steps_of(input, output)
      return steps, modules, own
   end
   local steps, modules, own = traced(false)
   local training, others = traced(true)
   if not same(steps, training) or not same(modules, others) then
      fail(module.__typename .. ': its ' .. name .. ' computes something else in training, which is not supported')
   end
   local made = setmetatable({line = module.line, modules = {}, steps = steps}, kit.classes['nn.gModule'])
   local order, index = made.modules, {}
   for _, child in ipairs(rawget(module, 'modules') or {}) do  -- the parameters' order is that of the container
      for i, called in ipairs(modules) do
         if called == child and not index[i] then
            order[#order + 1] = child
            index[i] = #order
         end
      end
   end
   for i, called in ipairs(modules) do
      if not index[i] then
         order[#order + 1] = called
         index[i] = #order
      end
   end
   for _, step in ipairs(steps) do step.module = step.module and index[step.module] end
   mark_gradient(module, made, own.called)
   exported[module] = made
   return made
end

-- describes a table: its id, its type, whether it is a tensor, and the table that is exported in its place
function kit.describe(thing)
   if not is_module(thing) or not getmetatable(thing) then return kit.id(thing), nil, kit.is_tensor(thing), thing end
   local made = export(thing)
   local class = base(made)
   return kit.id(made), class.__typename == 'nn.Criterion' and made.__typename or class.__typename, false, made
end
