"""A U-Net of moderate size in PyTorch, the same network as unet.prototxt, unet.lua and unet_tensorflow.py.

Four poolings, 8 to 128 filters, batch normalization (Ronneberger, Fischer and Brox, 2015). It keeps the size of the image, for
images of any size. Labels are class indices.
"""

import torch
from torch import nn

CLASSES = 21  # number of classes


def convolution(inputs, filters):
    return nn.Sequential(
        nn.Conv2d(inputs, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)
    )


class Block(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, inputs, filters):
        super().__init__()
        self.first = convolution(inputs, filters)
        self.second = convolution(filters, filters)

    def forward(self, x):
        return self.second(self.first(x))


class Up(nn.Module):
    """Upsample by two, crop to the size of the encoder's output, concatenate the two."""

    def __init__(self, inputs, filters):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, filters, 2, stride=2)

    def forward(self, x, skip):
        height, width = skip.shape[2:]
        x = self.up(x)[:, :, :height, :width]  # pooling rounds sizes up; the crop makes an odd size odd again
        return torch.cat([skip, x], 1)


class UNet(nn.Module):
    def __init__(self, channels=3, classes=CLASSES):
        super().__init__()
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.block1 = Block(channels, 8)
        self.block2 = Block(8, 16)
        self.block3 = Block(16, 32)
        self.block4 = Block(32, 64)
        self.block5 = Block(64, 128)
        self.up6, self.block6 = Up(128, 64), Block(128, 64)
        self.up7, self.block7 = Up(64, 32), Block(64, 32)
        self.up8, self.block8 = Up(32, 16), Block(32, 16)
        self.up9, self.block9 = Up(16, 8), Block(16, 8)
        self.score = nn.Conv2d(8, classes, 1)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x):
        skip1 = self.block1(x)
        skip2 = self.block2(self.pool(skip1))
        skip3 = self.block3(self.pool(skip2))
        skip4 = self.block4(self.pool(skip3))
        x = self.block5(self.pool(skip4))
        x = self.block6(self.up6(x, skip4))
        x = self.block7(self.up7(x, skip3))
        x = self.block8(self.up8(x, skip2))
        x = self.block9(self.up9(x, skip1))
        return self.score(x)


def network(params):
    """params as DIGITS gives them to Torch7: inputShape is [channels, height, width]."""
    return {
        "model": UNet(params["inputShape"][0], params["nclasses"] or CLASSES),
        "loss": nn.CrossEntropyLoss(),
        "trainBatchSize": 4,
        "validationBatchSize": 4,
    }
