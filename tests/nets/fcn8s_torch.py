import torch
import torch.nn as nn
import torch.nn.functional as F


def bilinear_kernel(channels, size):
    """Weights of a deconvolution that upsamples each channel by size / 2."""
    factor = (size + 1) // 2
    ramp = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
    weight = torch.zeros(channels, channels, size, size)
    weight[range(channels), range(channels)] = ramp[:, None] * ramp[None, :]
    return weight


class FCN8s(nn.Module):
    def __init__(self, n_class=5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 48, 3, padding=1)
        self.conv4 = nn.Conv2d(48, 64, 3, padding=1)
        self.conv5 = nn.Conv2d(64, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.fc6 = nn.Conv2d(64, 128, 1)
        self.drop6 = nn.Dropout()
        self.score_fr = nn.Conv2d(128, n_class, 1)
        self.score_pool3 = nn.Conv2d(48, n_class, 1)
        self.score_pool4 = nn.Conv2d(64, n_class, 1)
        self.upscore2 = nn.ConvTranspose2d(n_class, n_class, 4, stride=2, bias=False)
        self.upscore_pool4 = nn.ConvTranspose2d(n_class, n_class, 4, stride=2, bias=False)
        self.upscore8 = nn.ConvTranspose2d(n_class, n_class, 16, stride=8, bias=False)
        for m in self.modules():
            if isinstance(m, nn.ConvTranspose2d):
                m.weight.data.copy_(bilinear_kernel(n_class, m.kernel_size[0]))

    def forward(self, x):
        h = x
        h = self.pool(F.relu(self.conv1(h)))
        h = self.pool(F.relu(self.conv2(h)))
        pool3 = h = self.pool(F.relu(self.conv3(h)))
        pool4 = h = self.pool(F.relu(self.conv4(h)))
        h = self.pool(F.relu(self.conv5(h)))
        h = self.drop6(F.relu(self.fc6(h)))
        upscore2 = self.upscore2(self.score_fr(h))

        h = self.score_pool4(pool4)
        h = h + upscore2[:, :, 1:1 + h.size(2), 1:1 + h.size(3)]
        upscore_pool4 = self.upscore_pool4(h)

        h = self.score_pool3(pool3)
        h = upscore_pool4[:, :, 1:1 + h.size(2), 1:1 + h.size(3)] + h
        h = self.upscore8(h)
        return h[:, :, 4:4 + x.size(2), 4:4 + x.size(3)].contiguous()


def network(params):
    return {"model": FCN8s(), "loss": nn.CrossEntropyLoss()}
