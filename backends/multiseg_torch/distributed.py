"""One rank's replica of a network, trained with DistributedDataParallel. Runs in the backend's process.

Every exchange starts with the same small all-reduce, in which rank 0 announces a training step or a message. The other ranks
wait in it while rank 0 validates, writes a snapshot or finishes, and need not know which.
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
from multiseg_torch.computing import Forward, seed_generators, set_mode

JOIN = timedelta(minutes=10)  # for all ranks to connect
WAIT = timedelta(days=1)  # in an all-reduce: upper bound for rank 0's validation or snapshot
# whether each forward pass broadcasts rank 0's buffers; the older name is deprecated since PyTorch 2.13
BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel.__init__).parameters
)
ALONE = "train it as one process"


class Network(network.Network, RankNetwork):
    """One rank's replica. The model and its snapshots are the same as in single-process training."""

    def __init__(self, spec: NetworkSpec) -> None:
        if spec.compile:
            raise SettingsError(
                f"{setting('compile', True)}: is not available for a training in several processes; leave it out, or {ALONE}"
            )
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if spec.device != "cpu" and torch.cuda.is_available():
            torch.cuda.set_device(_gpu())
        super().__init__(spec)
        assert self.solver is not None
        self.part = self.batch_size // self.size
        self._check_mean()
        self._message_pending = False
        self._scores: torch.Tensor | None = (
            None  # attached to the last output; DistributedDataParallel copies the output
        )
        self.model.register_forward_hook(self._keep_scores)
        self._step_failed = False  # a step was left unfinished: the other ranks wait in a different collective
        with _collective():
            _join(self.rank, self.size)
            # messages use gloo on GPUs, too: a rank waiting in gloo does not keep its GPU busy
            group = dist.new_group(backend="nccl") if self.device.type == "cuda" else None
            self.parallel = DistributedDataParallel(
                self.model, process_group=group, find_unused_parameters=True, gradient_as_bucket_view=True,
                **{BUFFERS: False},
            )  # fmt: skip
        self.forward = Forward(spec, self.parallel, self.part, self.device, self.order)

    def _check_mean(self) -> None:
        """Raise ModelError if the batch's gradient is not the mean of the gradients of its shards."""
        reason = losses.not_a_mean(self.criterion)
        if reason:
            raise ModelError(
                f"{self.spec.model}: its loss cannot be split among processes: {reason}; {ALONE}, or use a loss that is a mean"
            )
        self.model.train()
        for name, module in self.model.named_modules():
            noted = isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
            if module.training and (noted or isinstance(module, nn.modules.batchnorm._BatchNorm)):
                raise ModelError(
                    f"{self.spec.model}: layer {name!r} ({type(module).__name__}) uses batch statistics, which differ "
                    f"between the shards of the processes; {ALONE}"
                )

    def train_step(  # type: ignore[override]
        self, features: Array, labels: Array, rate: float, seed: int = 0
    ) -> float | None:
        assert self.solver is not None
        images = self._open(len(features))
        if self._message_pending:
            return None
        seed_generators(seed, self.device)
        set_mode(self.model, training=True)
        self._step_failed = True
        loss_sum = torch.zeros(1, dtype=torch.float64)
        starts = range(0, max(len(features), 1), self.part)
        with self.solver.gradients(), _collective():
            for start in starts:
                part = slice(start, start + self.part)
                with nullcontext() if start == starts[-1] else self.parallel.no_sync():
                    loss_sum += self._add_gradients(features[part], labels[part], images)
        self.solver.step(rate)
        with _collective():
            dist.all_reduce(loss_sum)
        self._step_failed = False
        return float(loss_sum)

    def _add_gradients(self, features: Array, labels: Array, images: int) -> float:
        """Add the gradients of a part of the batch and return its share of the loss; ``images`` counts those of all ranks.

        A rank without images takes part with a blank image of weight 0.
        """
        count = len(features)
        if count:
            output, target = self.forward(self._tensor(features)), self._tensor(labels)
        else:
            output = self.forward(torch.zeros(1, *self.spec.input_shape, device=self.device))
            target = torch.zeros(1, *self.spec.label_shape, device=self.device)
        if self._scores is not None:
            output.scores = self._scores.float()
        loss = self.loss(output, target)
        # DistributedDataParallel divides by the number of ranks, which assumes equal numbers of images
        (loss * (count * self.size / images)).backward()
        return float(loss.detach()) * count / images if count else 0.0

    def _keep_scores(self, module: object, inputs: object, output: object) -> None:
        self._scores = getattr(output, "scores", None)

    def share(self, message: dict[str, Any] | None = None) -> dict[str, Any]:
        while not self._message_pending:
            self._open(0, message is not None)
        self._message_pending = False
        text = json.dumps(message).encode()
        received: dict[str, Any] = json.loads(bytes(_broadcast(text).numpy()))
        with _collective():
            dist.barrier()  # rank 0 may exit only after all ranks have received it
        return received

    def align(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / network.SNAPSHOT
            if self.rank == 0:
                self.save(folder)
            content = _broadcast(file.read_bytes() if self.rank == 0 else b"")
            if self.rank != 0:
                file.write_bytes(content.numpy())
                self.restore(folder)
        with _collective():
            dist.barrier()  # fails if a rank could not restore it

    def _open(self, images: int, message: bool = False) -> int:
        """Return the number of images of all ranks in the step that starts; 0 if rank 0 has a message instead."""
        if self._message_pending:
            return 0
        if self._step_failed:
            raise WorkerError("a training step of this process has failed; see its earlier error message")
        header = torch.tensor([images, int(message)])
        with _collective():
            dist.all_reduce(header)
        self._message_pending = bool(header[1])
        return int(header[0])

    def close(self) -> None:
        del self.parallel
        super().close()


def _join(rank: int, size: int) -> None:
    """Connect to the other ranks. If all run on this machine, only the loopback interface is used."""
    single_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    if single_machine:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    # the store's default socket would listen on all of the machine's addresses
    listener = {"master_listen_fd": socket.create_server((address, port)).detach()} if serves and single_machine else {}
    store = dist.TCPStore(address, port, size, serves, timeout=JOIN, wait_for_workers=False, **listener)
    # torchrun's store outlives the single training: successive trainings and restarts of a program share it
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
    """Return this rank's GPU index. Raise SettingsError if there are fewer GPUs than ranks."""
    index, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if index >= gpus:
        raise SettingsError(
            f"LOCAL_RANK={index}: this machine has {gpus} GPUs, and each process needs one; "
            f"start at most {gpus} processes, or choose {setting('device', 'cpu')}"
        )
    return index


def _broadcast(content: bytes) -> Tensor:
    """Return rank 0's bytes on every rank, as uint8."""
    length = torch.tensor([len(content)])
    with _collective():
        dist.broadcast(length, 0)
        if dist.get_rank() == 0:
            buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        else:
            buffer = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(buffer, 0)
    return buffer


@contextmanager
def _collective() -> Iterator[None]:
    """Run collective operations; raise WorkerError if another rank has ended."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # PyTorch has no exception class of its own for gloo's errors
        text = str(error)
        if not isinstance(error, dist.DistError) and "gloo" not in text:
            raise
        why = re.sub(r"^\[.*?\] ", "", text.splitlines()[0]).partition(". ")[0]  # without PyTorch's source location
        raise WorkerError(
            f"another process of this training has ended or cannot be reached ({why}); see that process's error message"
        ) from error
