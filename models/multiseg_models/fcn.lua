-- The tutorial's fully convolutional network for Torch7, as DIGITS loads it.
local OUTPUTS = nil  -- number of classes, or of channels of the label images; nil: as many as the image has

if pcall(function() require('cudnn') end) then
   backend = cudnn
else
   backend = nn
end

return function(params)
   local channels = 1
   if params.inputShape then channels = params.inputShape[1] end

   local net = nn.Sequential()
   net:add(backend.SpatialConvolution(channels, 32, 3, 3, 1, 1, 1, 1))
   net:add(backend.ReLU(true))
   net:add(backend.SpatialConvolution(32, 1024, 16, 16, 16, 16, 0, 0))
   net:add(backend.ReLU(true))
   net:add(nn.SpatialFullConvolution(1024, OUTPUTS or channels, 16, 16, 16, 16, 0, 0))

   return {
      model = net,
      loss = nn.SmoothL1Criterion(),
      trainBatchSize = 4,
      validationBatchSize = 32,
   }
end
