"""A training job: what the user asks for, checked and filled in with the backend's defaults."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.errors import ModelError, SettingsError
from multiseg.model_files import kind_of
from multiseg.schedule import Schedule

if TYPE_CHECKING:
    from multiseg.dataset import Dataset
    from multiseg.run import Run

RECIPES = ("tutorial",)
SUBTRACT_MEAN = ("pixel", "image", "none")
LOSSES = ("l1", "smooth_l1", "l2")
KEEP = ("last", "best", "all")
DEVICES = ("auto", "cpu", "cuda")

Progress = Callable[[dict[str, Any]], None]


@dataclass
class Job:
    """Everything that decides a training. None means the model's own value, else the backend's default.

    - ``dataset``: a Dataset or its folder; ``backend``: an installed backend's name; ``model``: a network file.
    - ``subtract_mean``: ``pixel``, ``image`` or ``none``; features only.
    - ``recipe``: ``tutorial``, each framework's own defaults as DIGITS' tutorial runs it.
    - ``solver``: ``sgd``, ``adam``, ... with ``solver_options`` over the backend's defaults (momentum, weight_decay, ...).
    - ``lr_policy``: a name or a mapping, see multiseg.schedule; ``loss``: ``l1``, ``smooth_l1`` or ``l2``, each the mean over
      all elements on every backend.
    - ``threads``: 0 for all the cores this process may use; ``lowering``: compute convolutions whose kernel equals their
      stride as one matrix product.
    - ``keep``: snapshots to keep besides the last: ``last`` none, ``best`` the one of lowest validation L1, ``all``.

    A network file written in Python is executed, in the backend's process; load only files you trust.
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
    lr_policy: str | Mapping[str, Any] | None = None
    loss: str | None = None
    seed: int | None = None
    device: str = "auto"
    threads: int = 0
    lowering: bool = True
    keep: str = "best"

    def train(self, folder: str | Path, resume: bool = False, progress: bool | Progress = True) -> Run:
        """Train into ``folder`` and return its Run; with ``resume`` go on from the last snapshot there.

        ``progress`` shows a bar on a terminal; a callable receives each event as a dict instead. Raises SettingsError before
        anything starts, RunError for an unsuitable folder, and TrainingError, WorkerError or ModelError later.
        """
        from multiseg.training import train

        return train(self, Path(folder), resume=resume, progress=progress)

    def resolve(self) -> Settings:
        """Check every setting and fill in the backend's defaults. Raises one SettingsError that lists all that is wrong."""
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
        one_of("solver", tuple(backend.solvers), self.solver)
        check(_whole(self.epochs) and self.epochs >= 1, f"epochs={self.epochs!r}: must be a whole number from 1")
        for name in ("batch_size", "val_batch_size"):
            value = getattr(self, name)
            check(value is None or (_whole(value) and value >= 1), f"{name}={value!r}: must be a whole number from 1")
        check(_whole(self.threads) and self.threads >= 0, f"threads={self.threads!r}: must be a whole number from 0")
        check(
            self.seed is None or (_whole(self.seed) and 0 <= self.seed < 2**31),
            f"seed={self.seed!r}: must be 0 to 2**31-1",
        )
        rate = backend.learning_rate if self.learning_rate is None else self.learning_rate
        check(isinstance(rate, (int, float)) and rate > 0, f"learning_rate={rate!r}: must be above 0")
        options: dict[str, Any] = dict(backend.solvers.get(self.solver, {}))
        known = {*options, "weight_decay"} - {"weight_decay_per_rate"}
        for key, number in self.solver_options.items():
            check(
                key in known,
                f"solver {self.solver!r} of {backend.name} has no option {key!r}; it takes: {', '.join(sorted(known))}",
            )
            check(isinstance(number, (int, float)) and number >= 0, f"{key}={number!r}: must be a number from 0")
            if key.startswith("momentum") and isinstance(number, (int, float)):
                least = "above 0 and " if self.solver == "nesterov" else ""
                check(number < 1 and (number > 0 or not least), f"{key}={number!r}: must be {least}below 1")
        model = Path(self.model) if self.model is not None else backend.default_model_path
        check(model.exists(), f"model={str(model)!r}: no such file")
        other = _kind_of_another(model, backend) if model.exists() else None
        check(other is None, f"model={str(model)!r}: {other}")
        schedule = None
        try:
            schedule = Schedule.of(self.lr_policy)
        except SettingsError as error:
            problems.append(str(error))
        if problems or schedule is None:
            raise SettingsError("; ".join(problems))

        per_rate = options.pop("weight_decay_per_rate", 0.0)
        options = {"weight_decay": per_rate * rate, **options, **self.solver_options}
        return Settings(
            backend=backend,
            model=model.resolve(),
            epochs=self.epochs,
            subtract_mean=self.subtract_mean,
            recipe=self.recipe,
            learning_rate=float(rate),
            batch_size=self.batch_size,
            val_batch_size=self.val_batch_size,
            solver={"name": self.solver, **options},
            schedule=schedule,
            loss=self.loss,
            seed=random.SystemRandom().randrange(2**31) if self.seed is None else self.seed,
            device=self.device,
            threads=self.threads or len(os.sched_getaffinity(0)),
            lowering=self.lowering,
            keep=self.keep,
        )


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


@dataclass
class Settings:
    """A job's settings, all checked; batch sizes and loss are filled in by the network where the job leaves them None."""

    backend: Backend
    model: Path
    epochs: int
    subtract_mean: str
    recipe: str
    learning_rate: float
    batch_size: int | None
    val_batch_size: int | None
    solver: dict[str, Any]
    schedule: Schedule
    loss: str | None
    seed: int
    device: str
    threads: int
    lowering: bool
    keep: str

    def to_json(self) -> dict[str, Any]:
        """Plain dict, with names for the backend, the schedule and the model."""
        plain = {key: value for key, value in vars(self).items() if key != "schedule"}
        return {**plain, "backend": self.backend.name, "model": self.model.name, "lr_policy": self.schedule.to_json()}
