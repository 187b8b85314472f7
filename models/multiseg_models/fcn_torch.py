"""The tutorial's fully convolutional network in PyTorch, equal to fcn.lua: its layers, its start values and its loss."""

from torch import nn

OUTPUTS = None  # number of classes, or of channels of the label images; None: as many as the image has


class FCN(nn.Module):
    def __init__(self, channels=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(32, 1024, 16, stride=16)
        self.relu2 = nn.ReLU(inplace=True)
        self.deconv = nn.ConvTranspose2d(1024, OUTPUTS or channels, 16, stride=16)
        for layer in (self.conv1, self.conv2, self.deconv):
            # Torch7 starts weights and biases uniformly within 1/sqrt(fan in), a deconvolution's fan in being its
            # input planes x kernel; PyTorch counts that one differently
            planes = layer.in_channels
            bound = (planes * layer.kernel_size[0] * layer.kernel_size[1]) ** -0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.uniform_(layer.bias, -bound, bound)

    def forward(self, x):
        x = self.relu1(self.conv1(x))
        x = self.relu2(self.conv2(x))
        return self.deconv(x)


def network(params):
    """params as DIGITS gives them to Torch7: inputShape is [channels, height, width]."""
    return {
        "model": FCN(params["inputShape"][0]),
        "loss": nn.SmoothL1Loss(),
        "trainBatchSize": 4,
        "validationBatchSize": 32,
    }
