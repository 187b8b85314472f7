"""One rank's network in a distributed training: steps, steps without the sum of gradients, and sums."""

import torch
import torch.distributed as dist
from multiseg_torch.distributed import Network
from serving import batches, options, serve

from multiseg.network import NetworkSpec

given = options()
network = Network(NetworkSpec.from_json(given["spec"]))
((features, labels),) = batches(given)
gradients = torch.ones(sum(each.numel() for each in network.model.parameters()))


def step() -> None:
    network.train_step(features, labels, given["rate"])


def alone() -> None:
    assert network.solver is not None
    with network.solver.gradients(), network.parallel.no_sync():
        network._add_gradients(features, labels, len(features))
    network.solver.step(given["rate"])


def sums() -> None:
    dist.all_reduce(gradients)
    gradients.fill_(1.0)


serve(step, alone=alone, sums=sums)
