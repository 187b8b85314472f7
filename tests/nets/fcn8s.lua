-- FCN-8s in small (Long, Shelhamer and Darrell 2015): each skip is a table of two, added up.
local classes = 5

local function block(net, from, to)
   net:add(nn.SpatialConvolution(from, to, 3, 3, 1, 1, 1, 1))
   net:add(nn.ReLU(true))
   net:add(nn.SpatialMaxPooling(2, 2, 2, 2))
   return net
end

-- a deconvolution by `factor` that starts as bilinear upsampling, its padding cutting off what the crop would
local function upsampling(factor)
   local size = 2 * factor
   local pad = factor / 2
   local up = nn.SpatialFullConvolution(classes, classes, size, size, factor, factor, pad, pad):noBias()
   local centre = factor - 0.5
   up.weight:zero()
   for class = 1, classes do
      for y = 1, size do
         for x = 1, size do
            local v = (1 - math.abs(y - 1 - centre) / factor) * (1 - math.abs(x - 1 - centre) / factor)
            up.weight[class][class][y][x] = v
         end
      end
   end
   return up
end

-- what is deeper, upsampled, and the scores of what is here, added
local function skip(deeper, channels)
   local both = nn.ConcatTable()
   both:add(deeper)
   both:add(nn.SpatialConvolution(channels, classes, 1, 1))
   return nn.Sequential():add(both):add(nn.CAddTable())
end

return function(params)
   local deepest = block(nn.Sequential(), 64, 64)                  -- pool4 -> pool5
   deepest:add(nn.SpatialConvolution(64, 128, 1, 1))
   deepest:add(nn.ReLU(true))
   deepest:add(nn.Dropout(0.5))
   deepest:add(nn.SpatialConvolution(128, classes, 1, 1))
   deepest:add(upsampling(2))

   local middle = block(nn.Sequential(), 48, 64)                   -- pool3 -> pool4
   middle:add(skip(deepest, 64))
   middle:add(upsampling(2))

   local net = nn.Sequential()
   block(net, 3, 16)
   block(net, 16, 32)
   block(net, 32, 48)
   net:add(skip(middle, 48))
   net:add(upsampling(8))

   return {model = net, loss = nn.SpatialCrossEntropyCriterion()}
end
