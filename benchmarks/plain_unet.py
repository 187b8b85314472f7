"""Train the U-Net on class masks in plain PyTorch, to compare mean IoU with `multiseg train` (docs/segmentation.md).

    python benchmarks/plain_unet.py FOLDER --classes 11 --ignore 11

FOLDER has train/images, train/labels, val/images and val/labels: RGB pictures and grey class masks of one size. Of multiseg it
uses the network file alone; reading, order of the images, loss, schedule and confusion matrix are its own.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from multiseg_models.unet_torch import UNet
from PIL import Image
from torch import nn


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 3, H, W) and labels (N, H, W), in the order of their names."""
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((folder / "images").iterdir())]
    labels = [np.asarray(Image.open(path)) for path in sorted((folder / "labels").iterdir())]
    return np.stack(images).transpose(0, 3, 1, 2), np.stack(labels)


def mean_iou(
    net: nn.Module, images: np.ndarray, labels: np.ndarray, mean: np.ndarray, options: argparse.Namespace
) -> float:
    """Return the mean IoU over the classes that occur in labels or outputs."""
    confusion = np.zeros((options.classes, options.classes), np.int64)
    net.eval()
    with torch.no_grad():
        for start in range(0, len(images), options.batch_size):
            batch = torch.from_numpy(images[start : start + options.batch_size] - mean)
            truth, guess = labels[start : start + options.batch_size], net(batch).argmax(1).numpy()
            counted = truth != options.ignore
            np.add.at(confusion, (truth[counted], guess[counted]), 1)
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    return float((both[either > 0] / either[either > 0]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--ignore", type=int, default=255)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    images, labels = read(options.folder / "train")
    held_out = read(options.folder / "val")
    mean = images.mean(axis=(0, 2, 3), dtype=np.float64).astype(np.float32)[:, None, None]
    torch.manual_seed(options.seed)
    net = UNet(3, options.classes)
    for layer in net.modules():
        if isinstance(
            layer, (nn.Conv2d, nn.ConvTranspose2d)
        ):  # the initialisation of the recipe equal, from other numbers
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    steps = -(-len(images) // options.batch_size) * options.epochs
    adam = torch.optim.Adam(net.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: (1 - step / steps) ** 0.9)
    loss_of = nn.CrossEntropyLoss(ignore_index=options.ignore)
    rng = np.random.default_rng(options.seed)
    started = time.perf_counter()
    for epoch in range(options.epochs):
        net.train()
        order = rng.permutation(len(images))
        for start in range(0, len(images), options.batch_size):
            chosen = order[start : start + options.batch_size]
            adam.zero_grad()
            loss = loss_of(
                net(torch.from_numpy(images[chosen] - mean)), torch.from_numpy(labels[chosen].astype(np.int64))
            )
            loss.backward()
            adam.step()
            schedule.step()
        iou = mean_iou(net, *held_out, mean, options)
        print(f"epoch {epoch + 1}  mean IoU {iou:.4f}  {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
