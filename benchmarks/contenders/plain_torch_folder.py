"""The script of PyTorch's tutorial on data ("Datasets & DataLoaders") with its training loop: PNG files, fcn_torch.py."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from multiseg_models import fcn_torch
from PIL import Image
from serving import options, serve_turns
from torch.utils.data import DataLoader, Dataset

given = options()


class Triangles(Dataset):
    def __init__(self, folder: str) -> None:
        self.inputs = sorted(Path(folder, "input").glob("*.png"))
        self.targets = sorted(Path(folder, "target").glob("*.png"))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = (
            torch.from_numpy(np.array(Image.open(paths[index]))[None]).float() for paths in (self.inputs, self.targets)
        )
        return image - given["mean"], label


torch.set_num_threads(given["threads"])
torch.manual_seed(1)
made = fcn_torch.network({"inputShape": [1, 32, 32]})
model, loss_fn = made["model"], made["loss"]
momentum = 0.9
optimizer = torch.optim.SGD(
    model.parameters(), lr=given["rate"], momentum=momentum, dampening=momentum, weight_decay=1e-4
)
loader = DataLoader(
    Triangles(given["folder"]), batch_size=given["batch_size"], shuffle=True, num_workers=given["workers"]
)


def endless():
    while True:
        yield from loader


batches = endless()


def train(count: int, _: str) -> None:
    model.train()
    for X, y in islice(batches, count):
        loss = loss_fn(model(X), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()


serve_turns(train)
