"""The facts about each run, read from its folder, and the differences between runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import median
from typing import Any

from multiseg.dataset.foreground import Foreground
from multiseg.errors import BackendUnavailable
from multiseg.pages.numbers import number
from multiseg.run.run import Run
from multiseg.settings.losses import loss_text, loss_title
from multiseg.settings.metrics import COSTS, SCORES

HASH_LENGTH = 12  # characters of a dataset's content hash that are shown


@dataclass(frozen=True)
class Best:
    """The best value of a metric and the epoch it was reached in."""

    value: float
    epoch: float


@dataclass(frozen=True)
class RunFacts:
    """The facts about one run, with a label that is unique in the comparison."""

    run: Run
    label: str
    version: str
    epoch: float
    """The epoch of the weights that the run tests with; its metrics are those of that epoch."""
    final: Mapping[str, float | None]
    """The value of every metric, None if there is none."""
    best: Mapping[str, Best]
    status: str
    """``finished``, ``running``, ``stopped``, ``failed`` or ``unfinished``."""
    problem: str
    """The error that stopped the training, if any."""
    loss_unit: str
    """The unit of the loss: losses with the same unit can be compared."""
    dataset: str
    """The dataset's folder."""
    content: str
    """The hash of the dataset's content, independent of its location."""
    title: str
    """The display name of the backend."""
    shapes: tuple[tuple[int, ...], ...]
    """The sorted shapes of the network's weights: equal for the same network in every framework."""
    foreground: Foreground
    """Which pixels of targets and outputs are foreground."""
    network: str
    """The name of the network, or of its file without the extension."""

    @property
    def loss(self) -> str:
        """The loss of the training, in words."""
        return loss_of(self.run.settings, loss_title)


@dataclass(frozen=True)
class Row:
    """The values of one setting in all runs, in the order of the runs."""

    key: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


def gather(runs: Sequence[Run]) -> list[RunFacts]:
    """Return the facts of each run, in the order of ``runs``."""
    return [_facts(run, label) for run, label in zip(runs, _labels(runs), strict=True)]


def settings(facts: Sequence[RunFacts]) -> list[Row]:
    """Return a row for every setting, including the dataset and the tested epoch."""
    return _rows([each.run.settings | _origin(each) for each in facts])


def _origin(facts: RunFacts) -> dict[str, Any]:
    return {"dataset": facts.dataset, "dataset content": facts.content[:HASH_LENGTH], "tested epoch": facts.epoch}


def environment(facts: Sequence[RunFacts]) -> list[Row]:
    """Return a row for every entry of the environment, and for the seed: what is needed to repeat a training."""
    return _rows([{**each.run.environment, "seed": each.run.settings.get("seed")} for each in facts])


def _rows(parts: Sequence[Mapping[str, Any]]) -> list[Row]:
    flat = [_flatten(part) for part in parts]
    keys = dict.fromkeys(key for one in flat for key in one)
    return [Row(key, tuple(one.get(key, "–") for one in flat)) for key in keys]


def _facts(run: Run, label: str) -> RunFacts:
    from multiseg.run.reading import read_job

    job = read_job(run.path)
    history, summary = run.history, run.summary
    tested = run.snapshot.epoch if run.snapshot else None
    last = next((row for row in history if row["epoch"] == tested), history[-1] if history else {})
    # row 0 is before training: it has no speed
    trained = [row for row in history if row["epoch"] > 0]

    def pace(key: str) -> float | None:
        values = [value for row in trained if (value := number(row.get(key))) is not None]
        return median(values) if values else None

    final = {metric.key: number(last.get(metric.key)) for metric in SCORES}
    final |= {metric.key: number(summary.get(metric.key)) for metric in COSTS}
    final |= {key: pace(key) for key in ("seconds", "images_per_second")}

    best = {}
    for metric in SCORES:
        reached = [(value, row["epoch"]) for row in history if (value := number(row.get(metric.key))) is not None]
        if reached:
            top = metric.best([value for value, _ in reached])
            best[metric.key] = Best(top, next(epoch for value, epoch in reached if value == top))
    return RunFacts(
        run=run,
        label=label,
        version=str(run.environment.get("framework") or ""),
        epoch=last.get("epoch", 0),
        final=final,
        best=best,
        status=str(summary.get("status") or "unfinished"),
        problem=str(summary.get("error") or ""),
        loss_unit=loss_unit(job),
        dataset=job["dataset"]["path"],
        content=job["dataset"]["content_hash"],
        title=_title(run),
        foreground=run.foreground,
        network=PurePath(str(job.get("model_path") or run.settings["model"])).stem,
        shapes=tuple(sorted(tuple(shape) for shape in job["network"]["parameters"].values())),
    )


def loss_unit(job: Mapping[str, Any]) -> str:
    """Return the unit of a run's loss from its job.json: losses of the same unit can be compared.

    A model's own loss is specific to it; named losses are the same on every backend.
    """
    settings = job["settings"]
    own = f"{settings['backend']}:{settings.get('exported') or settings['model']}" if job["network"]["own_loss"] else ""
    return f"{own}:{loss_of(settings, loss_text)}"


def loss_of(settings: Mapping[str, Any], write: Callable[..., str]) -> str:
    """Return the loss of a run's settings as written by ``write``, loss_text or loss_title."""
    weights = settings.get("class_weights") or ()
    return write(settings.get("loss") or "", settings.get("loss_options") or {}, weights)


def foreground_text(facts: Sequence[RunFacts]) -> str:
    """Return the rule of the foreground of all runs in words, or that each has its own."""
    rules = list(dict.fromkeys(str(run.foreground) for run in facts))
    return rules[0] if len(rules) == 1 else f"{' or '.join(rules)}, depending on the run"


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return a unique label for each run: its title, with the folder's name and a number only if necessary."""
    titles = [_title(run) for run in runs]
    names = [t if titles.count(t) == 1 else f"{t} · {run.name}" for t, run in zip(titles, runs, strict=True)]
    return [n if names.count(n) == 1 else f"{n} ({names[: at + 1].count(n)})" for at, n in enumerate(names)]


def _title(run: Run) -> str:
    try:
        return run.title
    except BackendUnavailable:  # a run of a backend that is not installed here
        return run.backend


def _flatten(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{before}{key}.")
        else:
            flat[before + key] = _written(value)
    return flat


def _written(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_written(one) for one in value)
    return str(value)
