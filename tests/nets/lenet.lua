-- LeNet (LeCun et al. 1998) for DIGITS, with cuDNN where there is one.

if pcall(function() require('cudnn') end) then
   print('Using CuDNN backend')
   backend = cudnn
   convLayer = cudnn.SpatialConvolution
   convLayerName = 'cudnn.SpatialConvolution'
else
   print('Failed to load cudnn backend (is libcudnn.so in your library path?)')
   if pcall(function() require('cunn') end) then
      print('Falling back to legacy cunn backend')
   else
      print('Failed to load cunn backend (is CUDA installed?)')
      print('Falling back to legacy nn backend')
   end
   backend = nn
   convLayer = nn.SpatialConvolutionMM
   convLayerName = 'nn.SpatialConvolutionMM'
end

return function(params)
   local nclasses = params.nclasses or 10
   local channels = 1
   -- params.inputShape may be nil during visualization
   if params.inputShape then
      channels = params.inputShape[1]
      assert(params.inputShape[2] == 28 and params.inputShape[3] == 28, 'Network expects 28x28 images')
   end

   local lenet = nn.Sequential()
   lenet:add(convLayer(channels, 20, 5, 5, 1, 1, 0))    -- 1*28*28 -> 20*24*24
   lenet:add(backend.SpatialMaxPooling(2, 2, 2, 2))     -- -> 20*12*12
   lenet:add(convLayer(20, 50, 5, 5, 1, 1, 0))          -- -> 50*8*8
   lenet:add(backend.SpatialMaxPooling(2, 2, 2, 2))     -- -> 50*4*4
   lenet:add(nn.View(-1):setNumInputDims(3))            -- -> 800
   lenet:add(nn.Linear(800, 500))
   lenet:add(backend.ReLU())
   lenet:add(nn.Linear(500, nclasses))

   for _, layer in ipairs(lenet:findModules(convLayerName)) do
      layer.bias:zero()
   end

   return {
      model = lenet,
      loss = nn.CrossEntropyCriterion(),
      trainBatchSize = 64,
      validationBatchSize = 32,
   }
end
