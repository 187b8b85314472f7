require 'nn'

-- a convolutional autoencoder: strided convolutions down, and their transposes up again
return function(params)
   local channels = 1
   if params.inputShape then channels = params.inputShape[1] end

   local encoder = nn.Sequential()
   encoder:add(nn.SpatialConvolution(channels, 16, 4, 4, 2, 2, 1, 1))     -- 32 -> 16
   encoder:add(nn.ReLU(true))
   encoder:add(nn.SpatialConvolution(16, 32, 4, 4, 2, 2, 1, 1))           -- 16 -> 8
   encoder:add(nn.ReLU(true))

   local decoder = nn.Sequential()
   decoder:add(nn.SpatialFullConvolution(32, 16, 4, 4, 2, 2, 1, 1))       -- 8 -> 16
   decoder:add(nn.ReLU(true))
   decoder:add(nn.SpatialFullConvolution(16, channels, 4, 4, 2, 2, 1, 1)) -- 16 -> 32
   decoder:add(nn.Sigmoid())

   local net = nn.Sequential()
   net:add(encoder)
   net:add(decoder)
   return {model = net, loss = nn.MSECriterion(), trainBatchSize = 16, validationBatchSize = 16}
end
