-- FCN-AlexNet (Long, Shelhamer and Darrell, 2015) for Torch7, as DIGITS loads it: the same network as fcn_alexnet.prototxt.
-- Scores at stride 32, bilinear upsampling, for images of any one size. Labels are class indices. It needs cudnn, whose
-- convolutions have groups; deconvolutions have none, so that each class has one of its own.
require 'cudnn'
local CLASSES = 21  -- number of classes

local function bilinear(size)
   local factor = math.floor((size + 1) / 2)
   local centre = size % 2 == 1 and factor - 1 or factor - 0.5
   local weights = torch.Tensor(size, size)
   for y = 1, size do
      for x = 1, size do
         weights[y][x] = (1 - math.abs(y - 1 - centre) / factor) * (1 - math.abs(x - 1 - centre) / factor)
      end
   end
   return weights
end

local function convolution(net, std, ...)
   local layer = cudnn.SpatialConvolution(...)
   layer.weight:normal(0, std)
   layer.bias:zero()
   net:add(layer)
end

return function(params)
   local channels, height, width = 3, 1, 1
   if params.inputShape then channels, height, width = unpack(params.inputShape) end
   local classes = params.nclasses or CLASSES

   local net = nn.Sequential()
   net:add(nn.AddConstant(-116))  -- in place of a mean
   convolution(net, 0.01, channels, 96, 11, 11, 4, 4, 100, 100)
   net:add(nn.ReLU(true))
   net:add(nn.SpatialMaxPooling(3, 3, 2, 2):ceil())
   net:add(nn.SpatialCrossMapLRN(5, 0.0001, 0.75, 1))
   convolution(net, 0.01, 96, 256, 5, 5, 1, 1, 2, 2, 2)
   net:add(nn.ReLU(true))
   net:add(nn.SpatialMaxPooling(3, 3, 2, 2):ceil())
   net:add(nn.SpatialCrossMapLRN(5, 0.0001, 0.75, 1))
   convolution(net, 0.01, 256, 384, 3, 3, 1, 1, 1, 1)
   net:add(nn.ReLU(true))
   convolution(net, 0.01, 384, 384, 3, 3, 1, 1, 1, 1, 2)
   net:add(nn.ReLU(true))
   convolution(net, 0.01, 384, 256, 3, 3, 1, 1, 1, 1, 2)
   net:add(nn.ReLU(true))
   net:add(nn.SpatialMaxPooling(3, 3, 2, 2):ceil())
   convolution(net, 0.005, 256, 4096, 6, 6)
   net:add(nn.ReLU(true))
   net:add(nn.Dropout(0.5))
   convolution(net, 0.005, 4096, 4096, 1, 1)
   net:add(nn.ReLU(true))
   net:add(nn.Dropout(0.5))
   convolution(net, 0, 4096, classes, 1, 1)

   -- one channel after the other, as a deconvolution with groups
   local kernel = bilinear(63)
   local scores = nn.Concat(2)
   for class = 1, classes do
      local up = nn.SpatialFullConvolution(1, 1, 63, 63, 32, 32):noBias()
      up.weight[1][1]:copy(kernel)
      scores:add(nn.Sequential():add(nn.Narrow(2, class, 1)):add(up))
   end
   net:add(scores)
   net:add(nn.Narrow(3, 19, height)):add(nn.Narrow(4, 19, width))

   return {
      model = net,
      loss = nn.SpatialCrossEntropyCriterion(),
      trainBatchSize = 1,
      validationBatchSize = 1,
   }
end
