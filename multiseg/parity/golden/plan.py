"""The plan of a check against a golden file: its batches, and the settings that it decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.job.job import Job
from multiseg.model_files import choosing, shipped
from multiseg.model_files.kinds import kind_of
from multiseg.network import NetworkSpec
from multiseg.parity.comparing import Loss
from multiseg.parity.golden.golden import Golden
from multiseg.parity.golden.values import Recipe
from multiseg.parity.plan import Entry, ParityBatch, Plan, side_name
from multiseg.parity.weights import run_of
from multiseg.run.run import Run
from multiseg.topology import Topology
from multiseg.training.preparation import spec_of


def refuse_conflicts(golden: Golden, requested: Mapping[str, Any]) -> None:
    """Raise one SettingsError that lists the requested settings that differ from those of the file; None is not requested."""
    wrong = []
    for name, value in requested.items():
        kept = dict(golden.settings)["solver" if name in ("solver", "solver_options") else name]
        if name == "solver":
            kept = kept["name"]
        if isinstance(value, Mapping):  # some of the options
            differs = any(key not in kept or kept[key] != each for key, each in value.items())
        else:
            plain = list(value) if isinstance(value, (tuple, list)) else value
            differs = value is not None and plain != kept
        if differs:
            stated = {key: each for key, each in kept.items() if key != "name"} if isinstance(kept, dict) else kept
            wrong.append(f"{setting(name, value)}: the file has {stated!r}")
    if wrong:
        raise SettingsError(
            f"{golden.path}: a golden file decides these settings, leave them out, or write another file with "
            f"{setting('save', example='FILE')}: {'; '.join(wrong)}"
        )


class GoldenPlan(Plan):
    """A plan for a golden file.

    Without ``models``, the network in the file is exported to each backend; each model is read and compared with that network
    first. Raises the same errors as check_parity.
    """

    def __init__(
        self, golden: Golden, models: Sequence[Path], backends: Sequence[str], weights: Sequence[Path],
        options: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.golden, self.mean, self.std = golden, golden.mean, golden.std
        self.label_kind = golden.settings["labels"]
        self.optional = set()
        self._options = {name: options[name] for name in ("device", "threads", "lowering")}
        if len(weights) > 1 and len(weights) != len(models):
            raise SettingsError(
                f"{setting('weights')}: {len(weights)} weights for {len(models)} models; specify one for all, or one for each"
            )
        if weights and not models:
            raise SettingsError(f"{setting('weights')}: specify the model that they belong to with {setting('model')}")
        files = [self._file(model, options) for model in models]
        runs = [run_of(file) for file in files]
        own: list[Path | Run | None] = list(runs)
        if weights:
            own = [weights[number if len(weights) > 1 else 0] for number in range(len(models))]
        paths = [run.model if run else file for run, file in zip(runs, files, strict=True)]
        self.entries = self._of_models(paths, runs, backends, own) if paths else self._of_file(backends)

    def _file(self, model: Path, options: Mapping[str, Any]) -> Path:
        classes, outputs = options["classes"], options["outputs"]
        topology = self.golden.topology
        if shipped.find(model) is not None and classes is None:
            classes = topology.shapes[topology.outputs[0]][0]
        path = choosing.path_of(
            model, classes=classes, channels=topology.input_shape[0], options=options["model_options"], outputs=outputs
        )
        if not path.exists():
            raise ModelError(f"{path}: no such file")
        return path

    def _of_models(
        self,
        paths: Sequence[Path],
        runs: Sequence[Run | None],
        backends: Sequence[str],
        own: Sequence[Path | Run | None],
    ) -> list[Entry]:
        """Return the sides of models: each computed by its own backend, or a single one by the ``backends``."""
        if backends and len(paths) > 1:
            raise SettingsError(
                f"{setting('backends', list(backends))}: several models are computed by their own backends; leave it out"
            )
        entries: list[Entry] = []
        for path, run, weights in zip(paths, runs, own, strict=True):
            owner = run.backend if run else kind_of(path, "network")[0].name
            for name in dict.fromkeys(backends or [owner]):
                backend = registry.get(name)
                title = side_name(backend, path, [entry.name for entry in entries])
                entries.append(self._entry(backend, path, title, weights))
        return entries

    def _of_file(self, backends: Sequence[str]) -> list[Entry]:
        """Return the sides of the network in the file: the ``backends``, or all that can write a network file."""
        chosen = [registry.get(name) for name in dict.fromkeys(backends or registry.names())]
        if not backends:
            chosen = [backend for backend in chosen if backend.exporter is not None]
            self.optional = {backend.name for backend in chosen}
        return [self._entry(backend, self.golden.path, backend.title) for backend in chosen]

    def _entry(self, backend: Backend, path: Path, name: str, weights: Path | Run | None = None) -> Entry:
        stated, of_file = self.golden.settings, path == self.golden.path
        solver = dict(stated["solver"])
        job = Job(
            dataset=self.golden.path, backend=backend.name, model=backend.default_model_path if of_file else path,
            recipe="equal", solver=solver.pop("name"), solver_options=solver, learning_rate=stated["learning_rate"],
            loss=stated["loss"], loss_options=stated["loss_options"], class_weights=stated["class_weights"] or None,
            ignore_index=stated["ignore_index"], batch_size=stated["batch_size"], val_batch_size=stated["batch_size"],
            subtract_mean="none", seed=stated["seed"], **self._options,
        )  # fmt: skip
        # a job without a dataset has a loss of images by default, and the model may state crops, which the batches are
        settings = replace(job.resolve(), model=path, loss=stated["loss"], crop=None, val_crop=None)
        return Entry(name, backend, path, settings, weights)

    def spec(self, entry: Entry) -> NetworkSpec:
        shape, (channels, height, width) = self.golden.topology.input_shape, self.golden.settings["label_shape"]
        return spec_of(entry.settings, (shape[0], shape[1], shape[2]), (channels, height, width), self.label_kind)

    def batch(self, step: int) -> ParityBatch:
        indices = self.golden.batches[step]
        return self.prepared(self.golden.features[indices], self.golden.labels[indices])

    def recipe(self) -> Recipe:
        """Return what the file's values are computed from."""
        golden, spec = self.golden, self.spec(self.entries[0])

        def loss(topology: Topology) -> Loss:
            return Loss.of(topology, golden.loss, golden.classes, spec)

        return Recipe(
            golden.topology, golden.weights, golden.trained, self.batch, loss, golden.settings["solver"],
            golden.settings["learning_rate"], golden.steps,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return {
            "against": str(self.golden.path),
            "written by": f"multiseg {self.golden.version}",
            **self.golden.settings,
        }
