-- A U-Net of moderate size for Torch7, as DIGITS loads it: the same network as unet.prototxt, unet_torch.py and
-- unet_tensorflow.py. Four poolings, 8 to 128 filters, batch normalization (Ronneberger, Fischer and Brox, 2015).
-- It keeps the size of the image, for images of any one size. Labels are class indices.
local CLASSES = 21  -- number of classes

if pcall(function() require('cudnn') end) then
   backend = cudnn
else
   backend = nn
end

local function start(layer, inputs, size)
   layer.weight:normal(0, math.sqrt(2 / (inputs * size * size)))
   if layer.bias then layer.bias:zero() end
   return layer
end

local function convolution(net, inputs, filters)
   local layer = backend.SpatialConvolution(inputs, filters, 3, 3, 1, 1, 1, 1):noBias()
   net:add(start(layer, inputs, 3))
   net:add(nn.SpatialBatchNormalization(filters))
   net:add(backend.ReLU(true))
end

local function block(net, inputs, filters)
   convolution(net, inputs, filters)
   convolution(net, filters, filters)
   return net
end

-- Pooling, what is deeper, and upsampling to the size before the pooling, which is concatenated with it.
-- Pooling rounds sizes up; the crop makes an odd size odd again.
local function around(deeper, inputs, filters, height, width)
   local branch = nn.Sequential()
   branch:add(backend.SpatialMaxPooling(2, 2, 2, 2):ceil())
   branch:add(deeper)
   branch:add(start(nn.SpatialFullConvolution(inputs, filters, 2, 2, 2, 2), filters, 2))
   if height % 2 == 1 then branch:add(nn.Narrow(3, 1, height)) end
   if width % 2 == 1 then branch:add(nn.Narrow(4, 1, width)) end
   return nn.Concat(2):add(nn.Identity()):add(branch)
end

return function(params)
   local channels, height, width = 3, 1, 1
   if params.inputShape then channels, height, width = unpack(params.inputShape) end
   local heights, widths = {height}, {width}
   for level = 2, 4 do
      heights[level], widths[level] = math.ceil(heights[level - 1] / 2), math.ceil(widths[level - 1] / 2)
   end

   local level5 = block(nn.Sequential(), 64, 128)
   local level4 = block(nn.Sequential(), 32, 64)
   level4:add(around(level5, 128, 64, heights[4], widths[4]))
   block(level4, 128, 64)
   local level3 = block(nn.Sequential(), 16, 32)
   level3:add(around(level4, 64, 32, heights[3], widths[3]))
   block(level3, 64, 32)
   local level2 = block(nn.Sequential(), 8, 16)
   level2:add(around(level3, 32, 16, heights[2], widths[2]))
   block(level2, 32, 16)
   local net = block(nn.Sequential(), channels, 8)
   net:add(around(level2, 16, 8, heights[1], widths[1]))
   block(net, 16, 8)
   net:add(start(backend.SpatialConvolution(8, params.nclasses or CLASSES, 1, 1), 8, 1))

   return {
      model = net,
      loss = nn.SpatialCrossEntropyCriterion(),
      trainBatchSize = 4,
      validationBatchSize = 4,
   }
end
