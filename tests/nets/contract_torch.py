"""The network of contract.prototxt."""

from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 8, 4, stride=4)
        self.relu2 = nn.ReLU(inplace=True)
        self.deconv = nn.ConvTranspose2d(8, 3, 4, stride=4)

    def forward(self, x):
        return self.deconv(self.relu2(self.conv2(self.relu1(self.norm(self.conv1(x))))))
