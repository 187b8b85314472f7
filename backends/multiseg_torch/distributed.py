"""One rank's copy of a network, trained with the others' by DistributedDataParallel. Runs in the backend's process.

Every exchange of the ranks begins with the same small sum over all of them, in which rank 0 says what comes, a step or a message.
So the others need not know when it validates, writes a snapshot or ends: they wait in that sum.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from multiseg.errors import ModelError, SettingsError, WorkerError, setting
from multiseg.network import Array, NetworkSpec, RankNetwork
from multiseg_torch import losses, network

JOIN = timedelta(minutes=10)  # for all ranks to come
WAIT = timedelta(days=1)  # in a sum: as long as rank 0 may validate or write
# whether each pass begins with rank 0's buffers; the older name is deprecated from PyTorch 2.13 on
BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel.__init__).parameters
)
ALONE = "train it as one process"


class Network(network.Network, RankNetwork):
    """A rank's part. The model itself, and what is saved of it, is as that of one process."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if spec.device != "cpu" and torch.cuda.is_available():
            torch.cuda.set_device(_gpu())
        super().__init__(spec)
        assert self.solver is not None
        self.part = self.batch_size // self.size
        self._check_mean()
        self._message_comes = False
        self._astray = False  # in the middle of a step that has failed: the others wait for something else
        with _together():
            _join(self.rank, self.size)
            # messages go through gloo on GPUs, too: a rank that waits there keeps no GPU busy
            group = dist.new_group(backend="nccl") if self.device.type == "cuda" else None
            self.parallel = DistributedDataParallel(
                self.model, process_group=group, find_unused_parameters=True, gradient_as_bucket_view=True,
                **{BUFFERS: False},
            )  # fmt: skip

    def _check_mean(self) -> None:
        """Raises ModelError where the batch's gradient is not the mean of those of its parts."""
        reason = losses.not_a_mean(self.criterion)
        if reason:
            raise ModelError(
                f"{self.spec.model}: its loss cannot be shared out among processes: {reason}; {ALONE}, or with a mean"
            )
        self.model.train()
        for name, module in self.model.named_modules():
            noted = isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
            if module.training and (noted or isinstance(module, nn.modules.batchnorm._BatchNorm)):
                raise ModelError(
                    f"{self.spec.model}: layer {name!r} ({type(module).__name__}) takes its statistics from the batch, and those "
                    f"of a process's share are others; {ALONE}"
                )

    def train_step(  # type: ignore[override]
        self, features: Array, labels: Array, rate: float, seed: int = 0
    ) -> float | None:
        assert self.solver is not None
        images = self._open(len(features))
        if self._message_comes:
            return None
        torch.manual_seed(seed)
        self.model.train()
        self._astray = True
        loss_sum = torch.zeros(1, dtype=torch.float64)
        starts = range(0, max(len(features), 1), self.part)
        with self.solver.gradients(), _together():
            for start in starts:
                part = slice(start, start + self.part)
                with nullcontext() if start == starts[-1] else self.parallel.no_sync():
                    loss_sum += self._add_gradients(features[part], labels[part], images)
        self.solver.step(rate)
        with _together():
            dist.all_reduce(loss_sum)
        self._astray = False
        return float(loss_sum)

    def _add_gradients(self, features: Array, labels: Array, images: int) -> float:
        """Of some of the ``images`` of all ranks; their part of the loss.

        A rank without any takes part with an empty image that counts nothing.
        """
        count = len(features)
        if count:
            made, wanted = self.parallel(self._tensor(features)), self._tensor(labels)
        else:
            made = self.parallel(torch.zeros(1, *self.spec.input_shape, device=self.device))
            wanted = torch.zeros(1, *self.spec.label_shape, device=self.device)
        loss = self.loss(made, wanted)
        # the parallel network divides by the number of ranks, as if all had the same number of images
        (loss * (count * self.size / images)).backward()
        return float(loss.detach()) * count / images if count else 0.0

    def share(self, message: dict[str, Any] | None = None) -> dict[str, Any]:
        while not self._message_comes:
            self._open(0, message is not None)
        self._message_comes = False
        text = json.dumps(message).encode()
        found: dict[str, Any] = json.loads(bytes(_broadcast(text).numpy()))
        with _together():
            dist.barrier()  # rank 0 may end now: all have it
        return found

    def align(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / network.SNAPSHOT
            if self.rank == 0:
                self.save(folder)
            held = _broadcast(file.read_bytes() if self.rank == 0 else b"")
            if self.rank != 0:
                file.write_bytes(held.numpy())
                self.restore(folder)
        with _together():
            dist.barrier()  # whoever could not take it is missed here

    def _open(self, images: int, message: bool = False) -> int:
        """How many images all ranks have for the step that begins; none where rank 0 has a message."""
        if self._message_comes:
            return 0
        if self._astray:
            raise WorkerError("a step of this process has failed; what it said tells why")
        told = torch.tensor([images, int(message)])
        with _together():
            dist.all_reduce(told)
        self._message_comes = bool(told[1])
        return int(told[0])

    def close(self) -> None:
        del self.parallel
        super().close()


def _join(rank: int, size: int) -> None:
    """Find the other ranks. Where all are on this machine, nothing listens beyond loopback."""
    here = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    if here:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    # the store's own socket would listen at every address of the machine
    listener = {"master_listen_fd": socket.create_server((address, port)).detach()} if serves and here else {}
    store = dist.TCPStore(address, port, size, serves, timeout=JOIN, wait_for_workers=False, **listener)
    # torchrun's store stays for all the trainings of a program, one after the other, and for its restarts
    attempt = f"multiseg/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    training = store.add(f"{attempt}/{rank}", 1)
    dist.init_process_group(
        "gloo",
        store=dist.PrefixStore(f"{attempt}/training/{training}", store),
        rank=rank,
        world_size=size,
        timeout=WAIT,
    )


def _gpu() -> int:
    """This rank's. Raises SettingsError where there are fewer than ranks."""
    number, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= there:
        raise SettingsError(
            f"LOCAL_RANK={number}: this machine has {there} GPUs, one for each process; "
            f"start no more, or choose {setting('device', 'cpu')}"
        )
    return number


def _broadcast(content: bytes) -> Tensor:
    """Rank 0's bytes, at every rank."""
    held = torch.tensor([len(content)])
    with _together():
        dist.broadcast(held, 0)
        if dist.get_rank() == 0:
            buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        else:
            buffer = torch.empty(int(held), dtype=torch.uint8)
        dist.broadcast(buffer, 0)
    return buffer


@contextmanager
def _together() -> Iterator[None]:
    """What the ranks do together. Raises WorkerError where one of them has gone."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # PyTorch has no kind of its own for gloo's errors
        told = str(error)
        if not isinstance(error, dist.DistError) and "gloo" not in told:
            raise
        why = re.sub(r"^\[.*?\] ", "", told.splitlines()[0]).partition(". ")[0]  # without the line of PyTorch's source
        raise WorkerError(
            f"another process of this training has ended or cannot be reached ({why}); what it said tells why"
        ) from error
