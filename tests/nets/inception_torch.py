import torch
import torch.nn as nn
import torch.nn.functional as F


class BasicConv2d(nn.Module):
    def __init__(self, in_channels, out_channels, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, **kwargs)

    def forward(self, x):
        return F.relu(self.conv(x), inplace=True)


class Inception(nn.Module):
    def __init__(self, in_channels, ch1x1, ch3x3red, ch3x3, ch5x5red, ch5x5, pool_proj):
        super().__init__()
        self.branch1 = BasicConv2d(in_channels, ch1x1, kernel_size=1)
        self.branch2 = nn.Sequential(
            BasicConv2d(in_channels, ch3x3red, kernel_size=1),
            BasicConv2d(ch3x3red, ch3x3, kernel_size=3, padding=1),
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(in_channels, ch5x5red, kernel_size=1),
            BasicConv2d(ch5x5red, ch5x5, kernel_size=5, padding=2),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
            BasicConv2d(in_channels, pool_proj, kernel_size=1),
        )

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1 = BasicConv2d(3, 16, kernel_size=3, padding=1)
        self.inception3a = Inception(16, 16, 8, 16, 4, 8, 8)
        self.inception3b = Inception(48, 24, 12, 24, 6, 12, 12)
        self.fc = nn.Linear(72, num_classes)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x), 3, stride=2, ceil_mode=True)
        x = self.inception3a(x)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        x = self.inception3b(x)
        x = F.avg_pool2d(x, 8)
        x = F.dropout(x, 0.4, self.training)
        return self.fc(x.view(x.size(0), -1))


def network(params):
    return {"model": GoogLeNet(params["nclasses"] or 10), "loss": nn.CrossEntropyLoss(), "trainBatchSize": 32}
