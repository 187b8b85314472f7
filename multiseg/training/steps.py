"""The input of each training step: a batch of images, or this rank's shard of it, the learning rate, and the seed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from multiseg.dataset import Dataset
from multiseg.dataset.augmentation import Augmented
from multiseg.dataset.cropping import crop_shapes
from multiseg.dataset.decoded import DEFAULT, MB, NOTHING, Limit
from multiseg.dataset.feed import Batch, batches, epoch_order
from multiseg.dataset.fitting import shapes_of
from multiseg.dataset.memory import machine_memory
from multiseg.dataset.readers import Readers
from multiseg.layout import Layout
from multiseg.settings.loaded import LoadedSettings
from multiseg.training.plan import Plan
from multiseg.training.preparation import crop_of
from multiseg.training.ranks import Ranks

IN_FLIGHT = 2  # calls submitted before waiting for the first losses, so that the worker never waits for a batch

MOST_READERS = 4  # by default


class Share:
    """The shard of one rank: every N-th image of the epoch's order, where N is the number of ranks."""

    def __init__(
        self, settings: LoadedSettings, plan: Plan, dataset: Dataset, layout: Layout, ranks: Ranks, readers: Readers
    ) -> None:  # fmt: skip
        self.settings, self.plan, self.dataset, self.layout, self.ranks = settings, plan, dataset, layout, ranks
        self.readers = readers
        self.crop = crop_of(settings, dataset, layout)

    def steps(self, iteration: int, until: int) -> Generator[dict[str, Any], None, None]:
        """Yield the arguments of train_step for iterations ``iteration`` to ``until - 1``; close the generator to end early."""
        plan, rank, size = self.plan, self.ranks.rank, self.ranks.size
        while iteration < until:
            epoch, start = divmod(iteration, plan.per_epoch)
            end = min(until - epoch * plan.per_epoch, plan.per_epoch)
            # up to ``until`` only, so that no image is read unnecessarily
            order = epoch_order(plan.images, self.settings.seed, epoch)[: end * plan.batch_size][rank::size]
            augmentation = self.settings.augmentation
            changes = augmentation.changes or self.crop is not None
            change = Augmented(augmentation, self.settings.seed, epoch, self.crop) if changes else None
            with batches(
                self.dataset.train, self.ranks.of(plan.batch_size), order, self.layout, start=start, change=change,
                readers=self.readers,
            ) as feed:  # fmt: skip
                for _ in range(start, end):
                    batch = next(feed, None) or self._empty_batch()
                    yield {
                        "features": batch.features,
                        "labels": batch.labels,
                        "rate": self.rate(iteration),
                        "seed": step_seed(self.settings.seed, iteration, rank),
                    }
                    iteration += 1

    def rate(self, iteration: int) -> float:
        """Return the learning rate of the step with index ``iteration`` (from 0)."""
        return self.settings.schedule.rate(self.settings.learning_rate, iteration, self.plan.iterations)

    def _empty_batch(self) -> Batch:
        """Return a batch without images, for a rank without a share of a batch that has fewer images than ranks."""
        shapes = crop_shapes(self.settings.crop, *shapes_of(self.dataset))
        features, labels = (np.empty((0, *shape), np.uint8) for shape in shapes)
        return Batch(self.layout.features(features), self.layout.labels(labels), np.empty(0, np.int64))


def readers_for(settings: LoadedSettings, ranks: Ranks) -> Readers:
    """Return what reads images, with as many processes as requested, else none on a CPU, whose cores train, and some on a GPU.

    Decoded images may take the memory that is requested, else a share of what is available if there are several epochs.
    """
    chosen = settings.data_workers
    if chosen is None:
        chosen = min(MOST_READERS, ranks.threads - 1) if settings.device == "cuda" else 0
    if settings.image_cache is not None:
        return Readers(chosen, Limit(min(settings.image_cache * MB, machine_memory())))
    return Readers(chosen, DEFAULT.divided(ranks.local_size) if settings.epochs > 1 else NOTHING)


def step_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """Return the random seed of a step, 0 to 2**31-1: a hash of the job's seed, the iteration, and the rank."""
    entropy = (seed, iteration, rank) if rank else (seed, iteration)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
