"""The plan of a parity check: network files, the backends that compute them, batches and weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.dataset import Dataset
from multiseg.dataset.cropping import CentreCrop
from multiseg.dataset.feed import epoch_order
from multiseg.dataset.fitting import mean_of, outputs_of, std_of
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.job.job import Job
from multiseg.layout import Layout
from multiseg.model_files import choosing, shipped
from multiseg.model_files.kinds import kind_of
from multiseg.network import CLASSES, FLOAT32, LabelKind, NetworkSpec
from multiseg.parity.weights import run_of
from multiseg.reference.bounded import Array
from multiseg.run.reading import is_run
from multiseg.run.run import Run
from multiseg.settings.resolved import Settings
from multiseg.settings.solvers import NEUTRAL_BATCH_SIZE
from multiseg.training.preparation import network_spec
from multiseg.worker import choice


@dataclass(frozen=True)
class Entry:
    """One side of the comparison: a network file, the backend that computes it, its settings, and its own weights or None."""

    name: str
    backend: Backend
    path: Path
    settings: Settings
    weights: Path | Run | None = None


@dataclass(frozen=True)
class ParityBatch:
    """Neutral images and labels (N, C, H, W), and the images as float32 with the mean subtracted and divided by the deviation.

    ``indices``: the numbers of the images in the dataset, empty if they are from elsewhere.
    """

    features: Array
    labels: Array
    images: Array
    indices: tuple[int, ...] = ()


class Plan(ABC):
    """The sides of a check, ``entries``, and the batches that all of them compute.

    ``optional``: names of backends that are left out if they cannot compute the model. ``label_kind``: the kind of labels that
    the images have. ``mean`` is subtracted from the images, which are divided by ``std``; None for neither.
    """

    entries: list[Entry]
    optional: set[str]
    label_kind: LabelKind
    mean: Array | None
    std: Array | None

    @abstractmethod
    def spec(self, entry: Entry) -> NetworkSpec:
        """Return the specification of a side's network."""

    @abstractmethod
    def batch(self, step: int) -> ParityBatch:
        """Return the batch of a step, counted from 0."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the settings that all sides share, as plain values."""

    def layout(self, backend: Backend) -> Layout:
        """Return the layout of a backend's batches."""
        return Layout(backend.data_order, backend.channel_order, self.mean, std=self.std)

    def prepared(self, features: Array, labels: Array) -> ParityBatch:
        """Return the batch of neutral images and labels."""
        return ParityBatch(features, labels, Layout("NCHW", "RGB", self.mean, std=self.std).features(features))

    @property
    def subtracted(self) -> Array | None:
        """The mean in the units of the network's input: divided by the deviation; None without a mean."""
        if self.mean is None or self.std is None:
            return self.mean
        return (self.mean / self.std.reshape(-1, *[1] * (self.mean.ndim - 1))).astype(np.float32)


def side_name(backend: Backend, model: Path, names: Sequence[str]) -> str:
    """Return the name of a side after those with ``names``: a backend and its network file, with a number if both repeat."""
    name = f"{backend.title} ({choice.read(model).title})"
    return name if name not in names else f"{name}, {len(names) + 1}"


class ParityPlan(Plan):
    """A plan for a dataset. Raises the same errors as check_parity."""

    def __init__(
        self,
        dataset: Dataset,
        models: Sequence[Path],
        backends: Sequence[str],
        weights: Sequence[Path],
        options: dict[str, Any],
        all_backends: bool = True,
    ) -> None:
        """Plan a check; ``all_backends``: a single model without ``backends`` is computed by all, not by its own alone."""
        if len(weights) > 1 and len(weights) != len(models):
            raise SettingsError(
                f"{setting('weights')}: {len(weights)} weights for {len(models)} models; "
                "specify one for the first model, or one for each"
            )
        self.dataset = dataset
        self.label_kind = dataset.labels.kind
        self.optional = set()
        self._all_backends = all_backends
        size = options["batch_size"]
        size = min(NEUTRAL_BATCH_SIZE, len(dataset.train)) if size is None else size
        options = dict(options)
        self._classes, self._model_options = options.pop("classes", None), options.pop("model_options", None)
        self._outputs: Sequence[str] = options.pop("outputs", ())
        self._options = {**options, "recipe": "equal", "batch_size": size, "val_batch_size": size}
        backends = list(dict.fromkeys(backends))
        self.mean = mean_of(dataset, options["subtract_mean"])
        models = self._files(models, backends)
        runs = [run_of(model) for model in models]
        self._given: list[Path | Run | None] = list(weights) if weights else list(runs)
        self.entries = self._entries(
            [run.model if run else model for run, model in zip(runs, models, strict=True)], runs, backends
        )
        self.crop = self.entries[0].settings.crop  # central, the same for all
        self.entries = [replace(entry, settings=replace(entry.settings, crop=self.crop)) for entry in self.entries]
        self.std = std_of(dataset, options["divide_std"])  # after the settings are checked

    def _files(self, models: Sequence[Path], backends: Sequence[str]) -> list[Path]:
        """Return the network files; in the place of a name, the network's file for each backend, or, of several, its first."""
        outputs, channels = outputs_of(self.dataset)
        files: list[Path] = []
        for model in models:
            named = shipped.find(model)
            if named is None:
                classes = self._classes or (outputs if self.dataset.labels.kind == CLASSES else None)
                files.append(self._path(model, classes))
                continue
            chosen = [registry.get(name) for name in backends or registry.names()] if len(models) == 1 else [None]
            named_files = [shipped.file_of(named, one, self._classes or outputs, channels) for one in chosen]
            files += [choosing.with_outputs(file, self._outputs) if self._outputs else file for file in named_files]
        return list(dict.fromkeys(files)) if len(models) == 1 else files

    def _path(self, model: Path, classes: int | None) -> Path:
        outputs = () if is_run(model) else self._outputs
        return choosing.path_of(model, classes=classes, options=self._model_options, outputs=outputs)

    def _entries(self, models: list[Path], runs: Sequence[Run | None], backends: Sequence[str]) -> list[Entry]:
        if not models:
            chosen = [registry.get(name) for name in backends or registry.names()]
            weights = [*self._given, *[None] * len(chosen)]  # at most one, for the first side
            return [
                self._entry(backend, backend.default_model_path, backend.title, entry_weights)
                for backend, entry_weights in zip(chosen, weights, strict=False)
            ]
        missing = next((model for model in models if not model.exists()), None)
        if missing is not None:
            raise ModelError(f"{missing}: no such file")
        owners = [
            registry.get(run.backend) if run else kind_of(model, "network")[0]
            for run, model in zip(runs, models, strict=True)
        ]
        if len(models) == 1 and not backends:
            others = [registry.get(name) for name in registry.names() if name != owners[0].name]
            readers = [backend for backend in others if backend.exporter is not None]
            self.optional = {backend.name for backend in readers}
            backends = [owners[0].name, *(backend.name for backend in readers if self._all_backends)]
        if len(models) == 1:
            pairs = [(registry.get(name), models[0]) for name in backends]
        else:
            owner_names = {owner.name for owner in owners}
            pairs = list(zip(owners, models, strict=True))
            pairs += [(registry.get(name), models[0]) for name in backends if name not in owner_names]
        entries: list[Entry] = []
        for number, (backend, model) in enumerate(pairs):
            name = side_name(backend, model, [entry.name for entry in entries])
            entry_weights = self._given[number] if number < min(len(self._given), len(models)) else None
            entries.append(self._entry(backend, model, name, entry_weights))
        return entries

    def _entry(self, backend: Backend, path: Path, name: str, weights: Path | Run | None = None) -> Entry:
        settings = Job(dataset=self.dataset, backend=backend.name, model=path, **self._options).resolve(self.dataset)
        name = name if settings.precision == FLOAT32 else f"{name}, {settings.precision}"
        return Entry(name, backend, path, settings, weights)

    def batch(self, step: int) -> ParityBatch:
        """Return the batch of a step: the complete batches of the training epochs, in order."""
        count, size, seed = len(self.dataset.train), self._options["batch_size"], self._options["seed"]
        epoch, place = divmod(step, max(count // size, 1))
        return self._batch(epoch_order(count, seed, epoch)[place * size : (place + 1) * size])

    def more_batches(self, images: int) -> Iterator[ParityBatch]:
        """Yield batches of the training images after the first batch, up to ``images`` with it; the last one may be smaller."""
        size, seed = self._options["batch_size"], self._options["seed"]
        indices = epoch_order(len(self.dataset.train), seed, 0)[:images]
        for start in range(size, len(indices), size):
            yield self._batch(indices[start : start + size])

    def _batch(self, indices: Any) -> ParityBatch:
        split = self.dataset.train
        if self.crop is None:
            features, labels = split.read(indices)
        else:
            features, labels = CentreCrop(self.crop, split.name)(*split.pairs(indices), indices)
        assert labels is not None  # the settings were resolved for this dataset
        return replace(self.prepared(features, labels), indices=tuple(int(index) for index in indices))

    def spec(self, entry: Entry) -> NetworkSpec:
        return network_spec(entry.settings, self.dataset)

    def to_json(self) -> dict[str, Any]:
        settings = self.entries[0].settings
        return {
            "dataset": str(self.dataset.path), "solver": settings.solver, "learning_rate": settings.learning_rate,
            "loss": settings.loss, "batch_size": settings.batch_size, "seed": settings.seed,
            "subtract_mean": settings.subtract_mean, "divide_std": settings.divide_std,
            "lowering": settings.lowering, "threads": settings.threads,
            **({} if settings.precision == FLOAT32 else {"precision": settings.precision}),
            "weights": [None if each is None else str(getattr(each, "path", each)) for each in self._given],
        }  # fmt: skip
