"""FCN-AlexNet (Long, Shelhamer and Darrell, 2015) in PyTorch, the same network as fcn_alexnet.prototxt.

Scores at stride 32, bilinear upsampling that is not trained. Layers have the names of AlexNet, whose trained weights start them.
Labels are class indices.
"""

import torch
from torch import nn

CLASSES = 21  # number of classes


def bilinear(size):
    """Return the kernel of bilinear upsampling, (size, size)."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    weights = 1 - (torch.arange(size) - centre).abs() / factor
    return weights[:, None] * weights[None, :]


class FCNAlexNet(nn.Module):
    def __init__(self, channels=3, classes=CLASSES):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 96, 11, stride=4, padding=100)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = nn.LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm2 = nn.LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.fc6 = nn.Conv2d(256, 4096, 6)
        self.relu6 = nn.ReLU()
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = nn.Conv2d(4096, 4096, 1)
        self.relu7 = nn.ReLU()
        self.drop7 = nn.Dropout(0.5)
        self.score_fr = nn.Conv2d(4096, classes, 1)
        self.upscore = nn.ConvTranspose2d(classes, classes, 63, stride=32, groups=classes, bias=False)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.fc6, self.fc7):
            nn.init.normal_(layer.weight, std=0.005 if layer in (self.fc6, self.fc7) else 0.01)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.score_fr.weight)
        nn.init.zeros_(self.score_fr.bias)
        with torch.no_grad():
            self.upscore.weight.copy_(bilinear(63).expand_as(self.upscore.weight))
        self.upscore.weight.requires_grad_(False)

    def forward(self, image):
        x = image - 116.0  # in place of a mean
        x = self.norm1(self.pool1(self.relu1(self.conv1(x))))
        x = self.norm2(self.pool2(self.relu2(self.conv2(x))))
        x = self.relu3(self.conv3(x))
        x = self.relu4(self.conv4(x))
        x = self.pool5(self.relu5(self.conv5(x)))
        x = self.drop6(self.relu6(self.fc6(x)))
        x = self.drop7(self.relu7(self.fc7(x)))
        x = self.upscore(self.score_fr(x))
        return x[:, :, 18 : 18 + image.shape[2], 18 : 18 + image.shape[3]]


def network(params):
    """params as DIGITS gives them to Torch7: inputShape is [channels, height, width]."""
    return {
        "model": FCNAlexNet(params["inputShape"][0], params["nclasses"] or CLASSES),
        "loss": nn.CrossEntropyLoss(),
        "trainBatchSize": 1,
        "validationBatchSize": 1,
    }
