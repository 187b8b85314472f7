-- AlexNet (Krizhevsky et al. 2012) in small, with local response normalisation and groups as the original has them.
require 'nn'
require 'cudnn'  -- for the groups

cudnn.benchmark = true
local conv, relu, pool = cudnn.SpatialConvolution, cudnn.ReLU, cudnn.SpatialMaxPooling

local function normalised(net)
   net:add(relu(true))
   net:add(cudnn.SpatialCrossMapLRN(5, 0.0001, 0.75, 1))
   net:add(pool(3, 3, 2, 2))
end

local function gaussian(net, deviation, bias)
   for _, name in pairs({'cudnn.SpatialConvolution', 'nn.Linear'}) do
      for _, layer in pairs(net:findModules(name)) do
         layer.weight:normal(0, deviation)
         layer.bias:fill(bias)
      end
   end
end

function createModel(nChannels, nClasses)
   local features = nn.Sequential()
   features:add(conv(nChannels, 24, 11, 11, 4, 4))                -- 67 -> 15
   normalised(features)                                           -- 15 -> 7
   features:add(conv(24, 64, 5, 5, 1, 1, 2, 2, 2))
   normalised(features)                                           -- 7 -> 3
   features:add(conv(64, 96, 3, 3, 1, 1, 1, 1)):add(relu(true))
   features:add(conv(96, 96, 3, 3, 1, 1, 1, 1, 2)):add(relu(true))
   features:add(conv(96, 64, 3, 3, 1, 1, 1, 1, 2)):add(relu(true))
   features:add(pool(3, 3, 2, 2))                                 -- 3 -> 1

   local classifier = nn.Sequential()
   classifier:add(nn.View(64 * 1 * 1))
   for _, width in ipairs({64, 256}) do
      classifier:add(nn.Linear(width, 256))
      classifier:add(nn.ReLU(true))
      classifier:add(nn.Dropout(0.5))
   end
   classifier:add(nn.Linear(256, nClasses))

   gaussian(features, 0.01, 0.1)
   gaussian(classifier, 0.005, 0.1)
   return nn.Sequential():add(features):add(classifier)
end

return function(params)
   assert(params.ngpus <= 1, 'Model supports only one GPU')
   return {
      model = createModel(params.inputShape and params.inputShape[1] or 3, params.nclasses or 10),
      loss = nn.CrossEntropyCriterion(),
      trainBatchSize = 128,
      validationBatchSize = 128,
   }
end
