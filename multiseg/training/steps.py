"""What each step of a training is given: the images of a batch, all of them or one process's share, the rate, and the seed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from multiseg.dataset import Dataset
from multiseg.dataset.augmentation import Augmented
from multiseg.dataset.feed import Batch, batches, epoch_order
from multiseg.layout import Layout
from multiseg.settings.loaded import LoadedSettings
from multiseg.training.plan import Plan
from multiseg.training.ranks import Ranks

IN_FLIGHT = 2  # steps requested before the first one's loss is awaited: the worker never waits for the next batch


class Share:
    """A rank's images of each step: every N-th of the epoch's order, N being how many ranks there are."""

    def __init__(self, settings: LoadedSettings, plan: Plan, dataset: Dataset, layout: Layout, ranks: Ranks) -> None:
        self.settings, self.plan, self.dataset, self.layout, self.ranks = settings, plan, dataset, layout, ranks

    def steps(self, iteration: int, until: int) -> Generator[dict[str, Any], None, None]:
        """What train_step is given, from so many steps on until there have been so many. Close it where it is left before."""
        plan, rank, size = self.plan, self.ranks.rank, self.ranks.size
        while iteration < until:
            epoch, start = divmod(iteration, plan.per_epoch)
            end = min(until - epoch * plan.per_epoch, plan.per_epoch)
            # the rest of this stretch only, so that nothing is read in vain
            order = epoch_order(plan.images, self.settings.seed, epoch)[: end * plan.batch_size][rank::size]
            augmentation = self.settings.augmentation
            change = Augmented(augmentation, self.settings.seed, epoch) if augmentation.changes else None
            with batches(
                self.dataset.train, self.ranks.of(plan.batch_size), order, self.layout, start=start, change=change
            ) as feed:
                for _ in range(start, end):
                    batch = next(feed, None) or self._none()
                    yield {
                        "features": batch.features,
                        "labels": batch.labels,
                        "rate": self.rate(iteration),
                        "seed": step_seed(self.settings.seed, iteration, rank),
                    }
                    iteration += 1

    def rate(self, iteration: int) -> float:
        """The learning rate of the step after so many."""
        return self.settings.schedule.rate(self.settings.learning_rate, iteration, self.plan.iterations)

    def _none(self) -> Batch:
        """The share of a batch that has fewer images than there are ranks."""
        split = self.dataset.train
        features, labels = (np.empty((0, *(shape or ())), np.uint8) for shape in (split.shape, split.label_shape))
        return Batch(self.layout.features(features), self.layout.labels(labels), np.empty(0, np.int64))


def step_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """The seed, 0 to 2**31-1, of what is random in a step: a hash of the job's seed, the iteration, and the rank."""
    entropy = (seed, iteration, rank) if rank else (seed, iteration)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
