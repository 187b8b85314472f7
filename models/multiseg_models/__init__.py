"""The tutorial's fully convolutional network in four files: fcn.prototxt, fcn.lua, fcn_torch.py, fcn_tensorflow.py."""
