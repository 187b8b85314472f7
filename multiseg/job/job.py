"""A training job: the settings that a user requests, and the methods to check them and to train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from multiseg import backend as registry
from multiseg.dataset import Dataset
from multiseg.errors import SettingsError, setting
from multiseg.job.resolution import resolved
from multiseg.run.own_model import model_to_resume
from multiseg.run.run import Run
from multiseg.settings.request import JobRequest
from multiseg.settings.requirements import check_kinds
from multiseg.settings.resolved import Settings
from multiseg.training.distributed.follower import follow
from multiseg.training.events import Progress
from multiseg.training.ranks import current
from multiseg.training.signals import Stop
from multiseg.training.train import train


@dataclass
class Job(JobRequest):
    """All settings of a training. None selects the model's own value, or the backend's default if it has none.

    - ``dataset``: a Dataset or its folder; ``backend``: an installed backend's name; ``model``: a network file, or the name
      of one (``multiseg models``).
    - ``model`` may be ``FILE.py:NAME(ARGUMENTS)``, ``package.module:NAME(ARGUMENTS)`` or ``FILE.lua:NAME``, a class or
      function of a file; ``model_options``: global variables that a Lua file reads, ``{"opt.depth": 18}``; ``classes``: the
      number of classes of a network chosen by name or of a file that leaves it open, by default that of the dataset's labels;
      ``outputs``: the name of the layer, as :func:`multiseg.describe` lists it, that the network is cut to, e.g. ``["score"]`` of
      a network with auxiliary outputs.
    - ``subtract_mean``: ``pixel``, ``image`` or ``none``; features only. None: ``mean``, else the network file's ``mean_value``,
      else ``pixel``. A scale in a prototxt is part of the network.
    - ``mean``: a mean of one's own, a number for each channel (or one for all), colours in the order B, G, R as in Caffe.
    - ``divide_std``: divide the inputs, after the subtraction, by a standard deviation: a number for each channel (or one for
      all), in the units of the pixels, colours in the order B, G, R; or ``dataset``, that of the training images.
    - ``recipe``: ``tutorial``, each framework's own defaults as in the DIGITS tutorial; ``equal``, the same initialisation, loss,
      solver and learning rate for all backends (docs/solvers.md).
    - ``solver``: ``sgd``, ``adam``, ... with ``solver_options`` over the recipe's defaults (momentum, weight_decay, ...).
    - ``multipliers``: of learning rate and weight decay, by patterns of parameter names: ``{"conv*.bias": {"lr": 2,
      "decay": 0}}``; the last matching pattern applies.
    - ``accumulate``: batches whose gradients are averaged for one update, which counts as one iteration.
    - ``lr_policy``: a name or a mapping, see multiseg.settings.schedules; ``loss``: a name of multiseg.settings.losses, the same
      loss on every backend (docs/losses.md); ``loss_options``: its parameters.
    - ``class_weights``: of the classes in a loss: ``balanced`` or ``median_frequency``, computed from the labels of the training
      images, or a list of one number per class.
    - ``ignore_index``: a class index of labels that count in no loss and no metric, besides those that the network file's own
      loss ignores (``ignore_label``, ``ignore_index``); None: that of the dataset, if it has one.
    - ``threads``: 0 for all cores available to this process, divided among the processes under torchrun; ``lowering``: compute
      convolutions whose kernel equals their stride as one matrix product.
    - ``data_workers``: processes that read, decode and augment images; 0 for a thread of this process. None: 0 on a CPU; on a
      GPU the number of cores minus 1, up to 4. Images and results are the same with any number.
    - ``image_cache``: megabytes of memory (10**6 bytes) for decoded images, which later epochs do not decode again. None: up to a
      quarter of the available memory, at most 4,000, and nothing for one epoch.
    - ``compile``: compile the training step, and ``precision``: ``float32``, or ``bf16`` with weights, solver state and loss in
      float32; both only where the backend supports it (docs/performance.md).
    - ``val_interval``, ``snapshot_interval``: in epochs, may be fractional; ``keep``: snapshots to keep besides the last:
      ``last`` none, ``best`` that of the best validation, ``all``.
    - ``metric``: selects the best validation: lowest ``l1``, ``l2`` or ``val_loss``, highest ``iou``, ``dice`` or
      ``pixel_accuracy``. None: ``l1``, or ``val_loss`` where it is not defined. Another one must be defined for the labels.
    - ``threshold``: the value that separates foreground and background, by default that of the dataset: 128, where pixels below
      it are foreground unless the dataset states another ``foreground``.
    - ``patience``: stop after this many validations without an improvement by more than ``min_delta``; None: train all epochs.
    - ``weights``: start weights, a run folder (its last snapshot) or a weights file, of any backend.
    - ``solver_state``: whether to load the solver state (momentum and other slots) with these weights: None if there is one, True
      to require it, False never (docs/jobs.md).
    - ``freeze``: names or patterns of layers that are not trained.
    - ``augment``: augmentation of the training images, see multiseg.dataset.augmentation.
    - ``crop``: train on random crops, the same of input and target: a number of pixels, (height, width), or ``128x160``. None:
      the network file's ``crop_size``, else whole images; ``none``: whole images. Images that are smaller are filled up: inputs
      with the mean, class indices with the label that is ignored; without one, both repeat their border.
    - ``val_crop``: ``centre`` validates and tests on the central part of that size, ``none`` on whole images. None: ``centre`` if
      the network file has a ``crop_size`` in phase TEST, or if ``crop`` is specified and labels are classes of whole images.

    A network file in a format of another backend is exported for this backend, see multiseg.exporting; both files are kept with
    the run. A network file written in Python is executed in its backend's process: load only files you trust.
    """

    def train(
        self,
        folder: str | Path,
        resume: bool = False,
        progress: bool | Progress = True,
        tensorboard: bool = False,
        stop: Stop | None = None,
        skip_damaged: bool = False,
    ) -> Run:
        """Train into ``folder`` and return its Run; with ``resume`` continue from the last snapshot in it.

        A damaged snapshot is an error, see docs/results.md; with ``skip_damaged`` the training continues from the newest snapshot
        without damage, and removes the damaged ones after it.

        A run is resumed with its own copy of the network file if ``model`` is None or no longer exists; seed, batch sizes, loss,
        metric, patience and weights that are None are those of the run, and the other settings must be the same.

        ``progress`` shows a bar on a terminal; a callable receives each event as a dict instead. ``tensorboard`` writes a log
        for TensorBoard into the folder. In the main thread, Ctrl-C and SIGTERM finish the current step, write a snapshot and
        raise TrainingStopped; a second signal ends the program immediately. ``stop`` requests the same from another thread.

        Under torchrun all processes run one training, if the backend supports it (docs/cluster.md): rank 0 does everything
        described here, and the other ranks feed their shard of each batch. They return the same Run; in a process that cannot
        access ``folder``, SystemExit with status 0 is raised.

        Raises SettingsError before anything starts, RunError for an unsuitable folder, and TrainingError, WorkerError or
        ModelError during the training.
        """
        if skip_damaged and not resume:
            raise SettingsError(
                f"{setting('skip_damaged', True)}: needs a run to resume; add {setting('resume', True)}"
            )
        ranks = current()
        check_kinds(self)
        registry.get(self.backend)  # report an unknown backend before anything is opened
        dataset = self.dataset if isinstance(self.dataset, Dataset) else Dataset.open(self.dataset)
        request = self
        if resume:
            request = replace(self, model=model_to_resume(Path(folder), self.model, self.backend))
        if not ranks.leads:
            settings = replace(request, weights=None, solver_state=None).resolve(dataset)
            return follow(settings, dataset, Path(folder), ranks)
        settings = request.resolve(dataset)
        return train(
            settings,
            dataset,
            Path(folder),
            self.seed,
            resume,
            skip_damaged,
            progress,
            tensorboard,
            stop or Stop(),
            ranks,
        )

    def resolve(self, dataset: Dataset | None = None) -> Settings:
        """Return the checked settings, completed with the backend's defaults; ``dataset``, if specified, is checked as well.

        Raises one SettingsError that lists all problems.
        """
        return resolved(self, dataset)
