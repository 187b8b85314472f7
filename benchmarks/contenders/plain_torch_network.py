"""The loop of PyTorch's own tutorial for any network file, as it is, on channels_last, or compiled; on a batch in memory."""

import torch
from multiseg_torch import files
from serving import options, serve
from torch import nn

given = options()
torch.set_num_threads(given["threads"])
torch.manual_seed(1)
model = files.load(given["model"], tuple(given["image"])).model
order = torch.channels_last if given["variant"] == "channels_last" else torch.contiguous_format
model = model.to(memory_format=order).train()
forward = torch.compile(model) if given["variant"] == "torch.compile" else model
images = torch.randn(given["batch_size"], *given["image"]).contiguous(memory_format=order)
labels = torch.randint(0, given["classes"], (given["batch_size"], *given["labels"])) if given["classes"] else None
loss_of = nn.CrossEntropyLoss() if given["classes"] else nn.SmoothL1Loss()
optimizer = torch.optim.SGD(model.parameters(), lr=given["rate"], momentum=0.9, dampening=0.9, weight_decay=1e-4)


def train() -> None:
    loss = loss_of(forward(images), images if labels is None else labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    loss.item()


for _ in range(3):  # torch.compile compiles in the first
    train()
serve(train, clock=given["clock"])
