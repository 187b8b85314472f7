"""A training job: the settings that a user requests, with what can be done with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from multiseg import backend as registry
from multiseg.dataset import Dataset
from multiseg.job.request import JobRequest
from multiseg.job.resolution import resolved
from multiseg.run.run import Run
from multiseg.settings.resolved import Settings
from multiseg.training.distributed.follower import follow
from multiseg.training.events import Progress
from multiseg.training.ranks import current
from multiseg.training.signals import Stop
from multiseg.training.train import train


@dataclass
class Job(JobRequest):
    """Everything that decides a training. None means the model's own value, else the backend's default.

    - ``dataset``: a Dataset or its folder; ``backend``: an installed backend's name; ``model``: a network file.
    - ``subtract_mean``: ``pixel``, ``image`` or ``none``; features only.
    - ``recipe``: ``tutorial``, each framework's own defaults as DIGITS' tutorial runs it; ``equal``, one initialisation, loss,
      solver and learning rate for all (docs/solvers.md).
    - ``solver``: ``sgd``, ``adam``, ... with ``solver_options`` over the recipe's defaults (momentum, weight_decay, ...).
    - ``multipliers``: of learning rate and weight decay, by patterns of parameters' names: ``{"conv*.bias": {"lr": 2,
      "decay": 0}}``; of several that match, the last counts.
    - ``accumulate``: batches whose gradients are averaged for one update, which counts as one iteration.
    - ``lr_policy``: a name or a mapping, see multiseg.settings.schedules; ``loss``: a name of multiseg.settings.losses, each the
      mean over all elements on every backend.
    - ``threads``: 0 for all the cores this process may use, its share of them under torchrun; ``lowering``: compute convolutions
      whose kernel equals their stride as one matrix product.
    - ``val_interval``, ``snapshot_interval``: in epochs, fractions too; ``keep``: snapshots to keep besides the last: ``last``
      none, ``best`` the one of the best validation, ``all``.
    - ``metric``: what makes a validation the best: ``l1``, ``l2``, ``val_loss`` (the least), ``iou``, ``pixel_accuracy`` (the
      most); ``threshold``: below it a pixel is of the object, 0 to 255.
    - ``patience``: stop after so many validations without one better by ``min_delta``; None: train all epochs.
    - ``weights``: what to start from, a run's folder (its last snapshot) or a weights file, of any backend.
    - ``solver_state``: whether what that run's solver kept, its momentum and the like, goes along: None where there is any,
      True or not at all, False never (docs/jobs.md).
    - ``freeze``: names of layers (patterns too) left as they are.
    - ``augment``: changes of the training images, see multiseg.dataset.augmentation.

    A network file of another backend's formats is written as this backend's own, see multiseg.exporting; both are kept with
    the run. One written in Python is executed, in its backend's process; load only files you trust.
    """

    def train(
        self,
        folder: str | Path,
        resume: bool = False,
        progress: bool | Progress = True,
        tensorboard: bool = False,
        stop: Stop | None = None,
    ) -> Run:
        """Train into ``folder`` and return its Run; with ``resume`` go on from the last snapshot there.

        ``progress`` shows a bar on a terminal; a callable receives each event as a dict instead. ``tensorboard`` writes a log
        for TensorBoard into the folder. In the main thread, Ctrl-C and SIGTERM end the step at hand, write a snapshot and
        raise TrainingStopped; a second one ends at once. ``stop`` asks for the same from another thread.

        Under torchrun it is one training of all the processes, if the backend can (docs/cluster.md): rank 0 does all that is told
        here, and the others read their share of each batch. They return the same Run; one that does not see ``folder`` ends here
        with its program, status 0.

        Raises SettingsError before anything starts, RunError for an unsuitable folder, and TrainingError, WorkerError or
        ModelError later.
        """
        ranks = current()
        registry.get(self.backend)  # an unknown backend is an error before anything is opened
        dataset = self.dataset if isinstance(self.dataset, Dataset) else Dataset.open(self.dataset)
        if not ranks.leads:
            settings = replace(self, weights=None, solver_state=None).resolve(dataset)
            return follow(settings, dataset, Path(folder), ranks)
        settings = self.resolve(dataset)
        return train(settings, dataset, Path(folder), self.seed, resume, progress, tensorboard, stop or Stop(), ranks)

    def resolve(self, dataset: Dataset | None = None) -> Settings:
        """Return the checked settings, completed with the backend's defaults; ``dataset`` is checked with them where it is given.

        Raises one SettingsError that lists all that is wrong.
        """
        return resolved(self, dataset)
