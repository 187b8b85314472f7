"""Test the U-Net in plain PyTorch, on channels_last and batches in memory: loss, predicted classes, confusion matrix."""

import torch
from multiseg_models.unet_torch import UNet
from serving import batches, options, serve
from torch.nn import functional

given = options()
torch.set_num_threads(given["threads"])
torch.manual_seed(1)
pieces = [(torch.from_numpy(images), torch.from_numpy(labels)[:, 0].long()) for images, labels in batches(given)]
classes, ignored = given["classes"], given["ignored"]
model = UNet(3, classes).to(memory_format=torch.channels_last).eval()


@torch.no_grad()
def test() -> None:
    total, confusion = 0.0, torch.zeros(classes * classes, dtype=torch.long)
    for images, labels in pieces:
        scores = model(images.contiguous(memory_format=torch.channels_last))
        total += functional.cross_entropy(scores, labels, ignore_index=ignored, reduction="sum").item()
        counted = labels != ignored
        pairs = classes * labels[counted] + scores.argmax(1)[counted]
        confusion += torch.bincount(pairs, minlength=classes * classes)


serve(test)
