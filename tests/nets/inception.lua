-- GoogLeNet (Szegedy et al. 2015) in small: two inception blocks.

local backend
if pcall(function() require 'cudnn' end) then backend = cudnn else backend = nn end
local convLayer = backend.SpatialConvolution or nn.SpatialConvolutionMM

local function inception(input_size, config)
   local concat = nn.Concat(2)

   local one = nn.Sequential()
   one:add(convLayer(input_size, config[1][1], 1, 1)):add(backend.ReLU(true))
   concat:add(one)

   local three = nn.Sequential()
   three:add(convLayer(input_size, config[2][1], 1, 1)):add(backend.ReLU(true))
   three:add(convLayer(config[2][1], config[2][2], 3, 3, 1, 1, 1, 1)):add(backend.ReLU(true))
   concat:add(three)

   local five = nn.Sequential()
   five:add(convLayer(input_size, config[3][1], 1, 1)):add(backend.ReLU(true))
   five:add(convLayer(config[3][1], config[3][2], 5, 5, 1, 1, 2, 2)):add(backend.ReLU(true))
   concat:add(five)

   local pool = nn.Sequential()
   pool:add(backend.SpatialMaxPooling(3, 3, 1, 1, 1, 1))
   pool:add(convLayer(input_size, config[4][1], 1, 1)):add(backend.ReLU(true))
   concat:add(pool)
   return concat
end

-- Glorot and Bengio 2010
local function w_init_xavier(net)
   net:apply(function(m)
      if torch.type(m):find('SpatialConvolution') then
         local fan_in, fan_out = m.nInputPlane * m.kW * m.kH, m.nOutputPlane * m.kW * m.kH
         m:reset(math.sqrt(2 / (fan_in + fan_out)))
         if m.bias then m.bias:zero() end
      end
   end)
   return net
end

return function(params)
   local channels = params.inputShape and params.inputShape[1] or 3
   local net = nn.Sequential()
   net:add(convLayer(channels, 16, 3, 3, 1, 1, 1, 1)):add(backend.ReLU(true))
   net:add(backend.SpatialMaxPooling(3, 3, 2, 2):ceil())                   -- 32 -> 16
   net:add(inception(16, {{16}, {8, 16}, {4, 8}, {8}}))                    -- 48
   net:add(backend.SpatialMaxPooling(3, 3, 2, 2):ceil())                   -- 16 -> 8
   net:add(inception(48, {{24}, {12, 24}, {6, 12}, {12}}))                 -- 72
   net:add(backend.SpatialAveragePooling(8, 8, 1, 1))
   net:add(nn.Dropout(0.4))
   net:add(nn.View(72):setNumInputDims(3))
   net:add(nn.Linear(72, params.nclasses or 10))
   w_init_xavier(net)

   return {model = net, loss = nn.CrossEntropyCriterion(), trainBatchSize = 32, validationBatchSize = 24}
end
