"""LeNet for digits of 28x28 pixels, with the layers of Caffe's example."""

from torch import nn

network = nn.Sequential(
    nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(),
    nn.Linear(500, 10),
)  # fmt: skip
