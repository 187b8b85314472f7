-- Torch7's modules and criterions, with the fields of Torch7's objects: they record their arguments, and PyTorch modules are created
-- from these records (modules.py).
--
-- Arguments: the table of tensors.lua and classes.lua. Returns: nothing.

local kit = ...
local fail, whole, define, fields, is_module = kit.fail, kit.whole, kit.define, kit.fields, kit.is_module
local type = type

local function container(name, spec) define(name, spec, {container = true}) end
container('Sequential', '')
container('Concat', 'dimension=1')
container('DepthConcat', 'dimension=1')
container('ConcatTable', '')
container('ParallelTable', '')
container('DataParallelTable', 'dimension=1 flattenParams? usenccl?')
container('Parallel', 'inputDimension outputDimension')
define('Bottle', 'nInputDim=2 nOutputDim=nInputDim', {container = true, init = function(made, module, ...)
   if not is_module(module) then fail('nn.Bottle: needs a module') end
   fields('nn.Bottle', 'nInputDim=2 nOutputDim=nInputDim', {...}, made)
   made.modules[1] = module
end})
define('JoinTable', 'dimension nInputDims?')
define('SplitTable', 'dimension nInputDims?')
define('SelectTable', 'index')
define('NarrowTable', 'offset length=1')
for _, name in ipairs({'FlattenTable', 'Identity', 'Copy', 'Contiguous', 'CMulTable', 'CSubTable', 'CDivTable', 'CMaxTable', 'CMinTable',
                       'Tanh', 'Sigmoid', 'SoftMax', 'LogSoftMax', 'SpatialSoftMax', 'SpatialLogSoftMax', 'Abs', 'Square',
                       'Sqrt', 'Exp', 'Log', 'LogSigmoid', 'SoftSign'}) do
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
-- one weight for each element of a size, which is repeated along dimensions of size 1
for name, part in pairs({CMul = 'weight', CAdd = 'bias'}) do
   define(name, '', {init = listed, [part] = function(made) return {unpack(made.size)} end})
end
define('Mul', '', {weight = function() return {1} end})
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
convolution('SpatialConvolution', kernel .. 'groups=1', kit.cudnn)
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
define('SpatialMaxUnpooling', '', {init = function(made, pooling)
   if not is_module(pooling) or kit.base(pooling).__typename ~= 'nn.SpatialMaxPooling' then
      fail('nn.SpatialMaxUnpooling: needs the nn.SpatialMaxPooling whose maxima it puts back')
   end
   made.pooling = pooling
end})
define('SpatialAdaptiveMaxPooling', 'W H=W')
define('SpatialAdaptiveAveragePooling', 'W H=W')
-- nn's stride is 1 by default, cudnn's is the kernel's size (cudnn.torch, Pooling.lua)
define('SpatialAveragePooling', 'kW kH dW=1 dH=1 padW=0 padH=0', {methods = rounding})
define('SpatialAveragePooling', 'kW kH dW=kW dH=kH padW=0 padH=0', {methods = rounding}, kit.cudnn)

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
