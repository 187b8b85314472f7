"""The loop of PyTorch's own tutorial ("Optimizing Model Parameters") for fcn_torch.py, on batches in memory."""

import torch
from multiseg_models import fcn_torch
from serving import batches, options, serve

given = options()
torch.set_num_threads(given["threads"])
torch.manual_seed(1)
made = fcn_torch.network({"inputShape": [1, *given["size"]]})
model, loss_fn = made["model"], made["loss"]
momentum = 0.9
optimizer = torch.optim.SGD(
    model.parameters(), lr=given["rate"], momentum=momentum, dampening=momentum, weight_decay=1e-4
)
pieces = [(torch.from_numpy(features), torch.from_numpy(labels)) for features, labels in batches(given)]


def train() -> None:
    for X, y in pieces:
        pred = model(X)
        loss = loss_fn(pred, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()


@torch.no_grad()
def test() -> None:
    for X, _ in pieces:
        model(X).numpy()


model.train(given["what"] == "train")
serve(train if given["what"] == "train" else test)
