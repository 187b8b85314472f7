"""A training job: what the user asks for, checked and filled in with the backend's defaults."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.dataset import Dataset
from multiseg.dataset.augmentation import Augmentation
from multiseg.dataset.fitting import mean_of, shapes_of
from multiseg.errors import ModelError, SettingsError
from multiseg.model_files.kinds import kind_of
from multiseg.run.run import Run
from multiseg.settings.metrics import NAMES as METRICS
from multiseg.settings.metrics import THRESHOLD
from multiseg.settings.resolved import Settings
from multiseg.settings.schedules import Schedule
from multiseg.settings.solvers import NEUTRAL, NEUTRAL_BATCH_SIZE, NEUTRAL_LOSS, multiplier_problems, option_problems
from multiseg.training.distributed.follower import follow
from multiseg.training.events import Progress
from multiseg.training.ranks import current
from multiseg.training.signals import Stop
from multiseg.training.train import train

RECIPES = ("tutorial", "equal")
SUBTRACT_MEAN = ("pixel", "image", "none")
LOSSES = ("l1", "smooth_l1", "l2")
KEEP = ("last", "best", "all")
DEVICES = ("auto", "cpu", "cuda")


@dataclass
class Job:
    """Everything that decides a training. None means the model's own value, else the backend's default.

    - ``dataset``: a Dataset or its folder; ``backend``: an installed backend's name; ``model``: a network file.
    - ``subtract_mean``: ``pixel``, ``image`` or ``none``; features only.
    - ``recipe``: ``tutorial``, each framework's own defaults as DIGITS' tutorial runs it; ``equal``, one initialisation, loss,
      solver and learning rate for all (docs/solvers.md).
    - ``solver``: ``sgd``, ``adam``, ... with ``solver_options`` over the recipe's defaults (momentum, weight_decay, ...).
    - ``multipliers``: of learning rate and weight decay, by patterns of parameters' names: ``{"conv*.bias": {"lr": 2,
      "decay": 0}}``; of several that match, the last counts.
    - ``accumulate``: batches whose gradients are averaged for one update, which counts as one iteration.
    - ``lr_policy``: a name or a mapping, see multiseg.settings.schedules; ``loss``: ``l1``, ``smooth_l1`` or ``l2``, each the
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

    dataset: Dataset | str | Path
    backend: str = "torch"
    model: str | Path | None = None
    epochs: int = 150
    subtract_mean: str = "pixel"
    recipe: str = "tutorial"
    learning_rate: float | None = None
    batch_size: int | None = None
    val_batch_size: int | None = None
    solver: str = "sgd"
    solver_options: Mapping[str, float] = field(default_factory=dict)
    multipliers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    accumulate: int = 1
    lr_policy: str | Mapping[str, Any] | None = None
    loss: str | None = None
    seed: int | None = None
    device: str = "auto"
    threads: int = 0
    lowering: bool = True
    val_interval: float = 1
    snapshot_interval: float = 1
    keep: str = "best"
    metric: str = "l1"
    threshold: float = THRESHOLD
    patience: int | None = None
    min_delta: float = 0.0
    weights: str | Path | None = None
    solver_state: bool | None = None
    freeze: Sequence[str] = ()
    augment: Mapping[str, Any] = field(default_factory=dict)

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
        """Check every setting, also against the dataset where it is given, and fill in the backend's defaults.

        Raises one SettingsError that lists all that is wrong.
        """
        backend = registry.get(self.backend)
        problems: list[str] = []

        def check(good: bool, message: str) -> None:
            if not good:
                problems.append(message)

        def one_of(name: str, known: tuple[str, ...], value: str | None) -> None:
            check(value in known, f"{name}={value!r}: choose one of {', '.join(known)}")

        one_of("recipe", RECIPES, self.recipe)
        one_of("subtract_mean", SUBTRACT_MEAN, self.subtract_mean)
        one_of("keep", KEEP, self.keep)
        one_of("device", DEVICES, self.device)
        if self.loss is not None:
            one_of("loss", LOSSES, self.loss)
        equal = self.recipe == "equal"
        one_of("solver", tuple(solver for solver in backend.solvers if solver in NEUTRAL or not equal), self.solver)
        check(_whole(self.epochs) and self.epochs >= 1, f"epochs={self.epochs!r}: must be a whole number from 1")
        for name in ("batch_size", "val_batch_size"):
            value = getattr(self, name)
            check(value is None or (_whole(value) and value >= 1), f"{name}={value!r}: must be a whole number from 1")
        check(
            _whole(self.accumulate) and self.accumulate >= 1,
            f"accumulate={self.accumulate!r}: must be a whole number from 1",
        )
        problems += multiplier_problems(self.multipliers)
        check(_whole(self.threads) and self.threads >= 0, f"threads={self.threads!r}: must be a whole number from 0")
        check(
            self.seed is None or (_whole(self.seed) and 0 <= self.seed < 2**31),
            f"seed={self.seed!r}: must be 0 to 2**31-1",
        )
        neutral = NEUTRAL.get(self.solver) if equal else None
        own_rate = neutral.rate if neutral else backend.learning_rate
        rate = own_rate if self.learning_rate is None else self.learning_rate
        check(_number(rate) and rate > 0, f"learning_rate={rate!r}: must be a number above 0")
        for name in ("val_interval", "snapshot_interval"):
            value = getattr(self, name)
            check(_number(value) and value > 0, f"{name}={value!r}: must be a number of epochs above 0, e.g. 0.5")
        one_of("metric", METRICS, self.metric)
        check(
            _number(self.threshold) and 0 < self.threshold <= 255,
            f"threshold={self.threshold!r}: must be a number above 0, up to 255",
        )
        check(
            self.patience is None or (_whole(self.patience) and self.patience >= 1),
            f"patience={self.patience!r}: must be a whole number of validations from 1",
        )
        check(_number(self.min_delta) and self.min_delta >= 0, f"min_delta={self.min_delta!r}: must be a number from 0")
        if self.weights is not None:
            # a TensorFlow checkpoint is named by a prefix
            there = any(Path(f"{self.weights}{suffix}").exists() for suffix in ("", ".index"))
            check(there, f"weights={str(self.weights)!r}: no such file or run folder")
        check(
            self.solver_state in (None, False, True),
            f"solver_state={self.solver_state!r}: must be true, false, or left out",
        )
        check(
            not self.solver_state or self.weights is not None,
            "solver_state=True: is that of a run to go on from; name it with weights",
        )
        check(
            not isinstance(self.freeze, str) and all(isinstance(each, str) and each for each in self.freeze),
            f"freeze={self.freeze!r}: must be a list of names of layers",
        )
        options: dict[str, Any] = dict(neutral.options if neutral else backend.solvers.get(self.solver, {}))
        known = {*options, "weight_decay"} - {"weight_decay_per_rate"}
        for key in self.solver_options:
            check(
                key in known,
                f"solver {self.solver!r} of {backend.name} has no option {key!r}; it takes: {', '.join(sorted(known))}",
            )
        problems += option_problems(self.solver, self.solver_options)
        model = Path(self.model) if self.model is not None else backend.default_model_path
        check(model.exists(), f"model={str(model)!r}: no such file")
        other = _kind_of_another(model, backend) if model.exists() else None
        check(other is None or backend.exporter is not None, f"model={str(model)!r}: {other}")
        schedule = None
        try:
            schedule = Schedule.of(self.lr_policy)
        except SettingsError as error:
            problems.append(str(error))
        augmentation = Augmentation()
        try:
            augmentation = Augmentation.of(self.augment)
        except SettingsError as error:
            problems.append(str(error))
        if dataset is not None:
            problems += self._misfits(dataset, augmentation)
        if problems or schedule is None:
            raise SettingsError("; ".join(problems))

        per_rate = options.pop("weight_decay_per_rate", 0.0)
        options = {"weight_decay": per_rate * rate, **options, **self.solver_options}
        return Settings(
            backend=backend,
            model=model.resolve(),
            exported=f"{model.stem}_{backend.name}{backend.formats[0]}" if other else None,
            epochs=self.epochs,
            subtract_mean=self.subtract_mean,
            recipe=self.recipe,
            learning_rate=float(rate),
            batch_size=self.batch_size or (NEUTRAL_BATCH_SIZE if equal else None),
            val_batch_size=self.val_batch_size or (NEUTRAL_BATCH_SIZE if equal else None),
            solver={"name": self.solver, **options},
            multipliers={pattern: dict(factors) for pattern, factors in self.multipliers.items()},
            accumulate=self.accumulate,
            schedule=schedule,
            loss=self.loss or (NEUTRAL_LOSS if equal else None),
            seed=random.SystemRandom().randrange(2**31) if self.seed is None else self.seed,
            device=self.device,
            threads=self.threads or current().threads,
            lowering=self.lowering,
            val_interval=self.val_interval,
            snapshot_interval=self.snapshot_interval,
            keep=self.keep,
            metric=self.metric,
            threshold=self.threshold,
            patience=self.patience,
            min_delta=self.min_delta,
            weights=None if self.weights is None else Path(self.weights).resolve(),
            solver_state=self.solver_state,
            freeze=tuple(self.freeze),
            augmentation=augmentation,
        )

    def _misfits(self, dataset: Dataset, augmentation: Augmentation) -> list[str]:
        """What does not go together with the dataset."""
        problems, count = [], len(dataset.train)
        try:
            problems += augmentation.misfits(*shapes_of(dataset))
        except SettingsError as error:
            problems.append(str(error))
        try:
            mean_of(dataset, self.subtract_mean)
        except SettingsError as error:
            problems.append(str(error))
        if self.batch_size is not None and _whole(self.batch_size) and _whole(self.accumulate):
            times = f" x accumulate={self.accumulate}" if self.accumulate > 1 else ""
            if self.batch_size * self.accumulate > count > 0:
                problems.append(
                    f"batch_size={self.batch_size}{times}: is larger than the dataset, {count} training images"
                )
        if self.patience is not None and not len(dataset.val):
            problems.append(f"patience={self.patience!r}: {dataset.path} has no validation images to go by")
        return problems


def _kind_of_another(model: Path, backend: Backend) -> str | None:
    """In words, whose file a model is, if it is another backend's. What no backend knows is left to this one's errors."""
    try:
        owner, kind = kind_of(model, "network")
    except ModelError:
        return None
    if owner.name == backend.name:
        return None
    known = ", ".join(
        f"{kind.name} ({', '.join(kind.extensions)})" for kind in backend.kinds if kind.holds == "network"
    )
    return f"is a {kind.name}, which backend {owner.name} loads; backend {backend.name} loads: {known}"


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
