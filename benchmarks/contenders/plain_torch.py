"""The loop of PyTorch's own tutorial ("Optimizing Model Parameters") for fcn_torch.py, on a batch that lies ready."""

import numpy as np
import torch
from multiseg_models import fcn_torch
from serving import options, serve

given = options()
torch.set_num_threads(given["threads"])
torch.manual_seed(1)
made = fcn_torch.network({"inputShape": [1, *given["size"]]})
model, loss_fn = made["model"], made["loss"]
momentum = 0.9
optimizer = torch.optim.SGD(
    model.parameters(), lr=given["rate"], momentum=momentum, dampening=momentum, weight_decay=1e-4
)
X, y = (torch.from_numpy(np.load(given["batch"])[name]) for name in ("features", "labels"))


def train() -> None:
    pred = model(X)
    loss = loss_fn(pred, y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    loss.item()


@torch.no_grad()
def test() -> None:
    model(X).numpy()


model.train(given["what"] == "train")
serve(train if given["what"] == "train" else test)
