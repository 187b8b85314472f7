"""A run folder: what a training leaves behind, and testing with what it learned.

job.json         settings, dataset, network and environment, written once
history.csv      one row per epoch; row 0 is before training
summary.json     status, best epoch, seconds, peak memory
model/           the network file
snapshots/       epoch-0001/ ... the framework's own files
worker.log       what the backend's process printed
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from multiseg import backend as registry
from multiseg import inference
from multiseg.dataset import Dataset
from multiseg.errors import DatasetError, ModelError, MultisegError, RunError
from multiseg.files import write_json, write_text
from multiseg.geometry import Geometry, NotLocal
from multiseg.images import PixelConversion
from multiseg.inference import Options, Output
from multiseg.layout import Layout
from multiseg.model_files import describe
from multiseg.network import NetworkSpec
from multiseg.worker.client import Worker

if TYPE_CHECKING:
    from multiseg.job import Settings
    from multiseg.layers import Layers

FORMAT = 1
COLUMNS = (
    "epoch", "iteration", "train_loss", "val_loss", "l1", "l2", "pixel_accuracy", "iou", "learning_rate", "seconds",
    "val_seconds", "images_per_second",
)  # fmt: skip
SNAPSHOT = re.compile(r"epoch-(\d+)")


@dataclass(frozen=True)
class Snapshot:
    """Weights and solver state as they were after ``epoch`` epochs."""

    epoch: int
    path: Path


def snapshots(folder: Path) -> list[Snapshot]:
    """The run folder's snapshots, oldest first."""
    found = [(SNAPSHOT.fullmatch(path.name), path) for path in (folder / "snapshots").glob("epoch-*")]
    return sorted(
        (Snapshot(int(match[1]), path) for match, path in found if match), key=lambda snapshot: snapshot.epoch
    )


def read_history(path: Path) -> list[dict[str, Any]]:
    """Rows of history.csv as numbers, None for an empty cell. Raises RunError for a file that is not one."""
    try:
        with path.open(newline="") as file:
            rows = [{key: float(cell) if cell else None for key, cell in row.items()} for row in csv.DictReader(file)]
            return [{**row, "epoch": int(row["epoch"] or 0), "iteration": int(row["iteration"] or 0)} for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: cannot be read as a run's history ({error})") from error


class RunFolder:
    """The writing side of a run folder, for the training loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = False  # by this training, so that it may be removed where nothing was trained
        self._rows: list[dict[str, Any]] = []
        self._summary: dict[str, Any] = {}

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new run folder. Raises RunError where something is there already."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path}: exists already; name another folder, remove it, or go on with it (resume)")
        try:
            (path / "snapshots").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: cannot be created: {error.strerror}") from error
        folder = cls(path)
        folder._made = True
        return folder

    @classmethod
    def resume(cls, path: Path, settings: Settings, dataset: Dataset, seed: int | None) -> RunFolder:
        """An interrupted run's folder, which fills in what the settings leave open; ``seed`` is the one asked for, if any.

        Raises RunError where its settings, network file or dataset are not the ones given.
        """
        job = read_job(path)
        if job["dataset"]["content_hash"] != dataset.content_hash:
            raise RunError(f"{path}: was trained on another dataset ({job['dataset']['path']}); resume with that one")
        kept = job["settings"]
        if seed is not None and seed != kept["seed"]:
            raise RunError(
                f"{path}: was trained with seed={kept['seed']}, not {seed}; resume with that one, or with none"
            )
        settings.seed = kept["seed"]
        for key in ("batch_size", "val_batch_size"):
            setattr(settings, key, getattr(settings, key) or kept[key])
        if settings.loss is None and not job["network"]["own_loss"]:
            settings.loss = kept["loss"]
        model = path / "model" / kept["model"]
        if settings.model.name == model.name and settings.model.read_bytes() != model.read_bytes():
            raise RunError(f"{settings.model}: has changed since {path} began; the run's own copy is {model}")
        now = settings.to_json()
        for key, value in kept.items():
            if key in now and now[key] is not None and key not in ("epochs", "threads", "device") and now[key] != value:
                raise RunError(
                    f"{path}: was trained with {key}={value!r}, not {now[key]!r}; resume with the same settings"
                )
        if now["epochs"] != kept["epochs"]:
            raise RunError(
                f"{path}: is a run of {kept['epochs']} epochs, not {now['epochs']}; the schedule depends on it"
            )
        folder = cls(path)
        if (path / "history.csv").exists():  # not there where it was interrupted before the first validation
            folder._rows = read_history(path / "history.csv")
        return folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second training out of this folder. Raises RunError where one is at work."""
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(f"{self.path}: another training is at work here") from error
            yield

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Removes a folder in which nothing was trained; records why a run stopped otherwise."""
        try:
            yield
        except BaseException as error:
            if self._made and not self._rows:
                shutil.rmtree(self.path, ignore_errors=True)
            elif self._rows:
                self._summarize(
                    status="stopped" if isinstance(error, KeyboardInterrupt) else "failed", error=str(error)
                )
            raise

    def start(
        self,
        settings: Settings,
        dataset: Dataset,
        mean: npt.NDArray[np.float32] | None,
        described: dict[str, Any],
        environment: dict[str, Any],
    ) -> None:
        """Write job.json."""
        write_json(
            self.path / "job.json",
            {
                "format": FORMAT,
                "settings": settings.to_json(),
                "dataset": {"path": str(dataset.path.resolve()), "content_hash": dataset.content_hash},
                "mean": None if mean is None else mean.tolist(),
                "input_shape": dataset.train.shape,
                "label_shape": dataset.train.label_shape,
                "network": described,
                "environment": environment,
            },
        )

    def add_row(self, row: dict[str, Any]) -> None:
        """Append one row to the history."""
        self._rows.append(row)
        self._write_history()
        self._summarize(status="running")

    def rewind(self, epoch: int) -> None:
        """Forget rows after ``epoch``: they will be trained again."""
        if any(row["epoch"] > epoch for row in self._rows):
            self._rows = [row for row in self._rows if row["epoch"] <= epoch]
            self._write_history()

    def _write_history(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self.path / "history.csv", text.getvalue())

    def _summarize(self, **values: Any) -> None:
        scored = [row for row in self._rows if row["l1"] is not None and row["epoch"] > 0]  # 0 has no snapshot
        self._summary |= {
            "epochs": self._rows[-1]["epoch"],
            "best_epoch": min(scored, key=lambda row: row["l1"])["epoch"] if scored else None,
            "train_seconds": sum(row["seconds"] for row in self._rows),
            **values,
        }
        write_json(self.path / "summary.json", self._summary)

    def finish(self, peak_memory_mb: float) -> None:
        """Record that the run is complete."""
        self._summarize(status="finished", peak_memory_mb=peak_memory_mb)

    def last_snapshot(self) -> Snapshot | None:
        """The newest complete snapshot."""
        return max(snapshots(self.path), key=lambda snapshot: snapshot.epoch, default=None)

    @contextmanager
    def snapshot(self, epoch: int, keep: str) -> Iterator[Path]:
        """A folder to save into, which becomes the snapshot of ``epoch`` when the block ends well; old ones are then dropped."""
        part = self.path / "snapshots" / ".part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            final = part.with_name(f"epoch-{epoch:04}")
            shutil.rmtree(final, ignore_errors=True)
            part.rename(final)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        if keep != "all":
            wanted = {epoch, self._summary.get("best_epoch") if keep == "best" else epoch}
            for old in snapshots(self.path):
                if old.epoch not in wanted:
                    shutil.rmtree(old.path)


def read_job(folder: Path) -> dict[str, Any]:
    """job.json of a run folder. Raises RunError where the folder is not a run's."""
    try:
        job: dict[str, Any] = json.loads((folder / "job.json").read_text())
    except FileNotFoundError:
        raise RunError(f"{folder}: is not a run folder (it has no job.json)") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / 'job.json'}: cannot be read: {error}") from error
    if job.get("format") != FORMAT:
        raise RunError(f"{folder / 'job.json'}: format {job.get('format')!r}; this multiseg reads format {FORMAT}")
    return job


class Run:
    """A trained network: its settings, its history, and testing with its weights.

    Testing starts the backend's process on first use; ``close`` (or ``with``) ends it.
    """

    def __init__(self, path: Path, snapshot: Snapshot | None) -> None:
        self.path = path
        self.snapshot = snapshot
        self._job = read_job(path)
        self.settings: dict[str, Any] = self._job["settings"]
        self.environment: dict[str, Any] = self._job["environment"]
        self.backend: str = self.settings["backend"]
        self.name = path.resolve().name
        self._worker: Worker | None = None

    @classmethod
    def open(cls, folder: str | Path, snapshot: str | int = "last") -> Run:
        """Open a run folder, to test with its ``last`` snapshot, its ``best`` one, or that of a given epoch.

        Raises RunError where the folder is not a run's or the snapshot is not there.
        """
        path = Path(folder)
        run = cls(path, None)
        there = {found.epoch: found for found in snapshots(path)}
        if snapshot == "last":
            run.snapshot = there[max(there)] if there else None
            return run
        wanted = run.summary.get("best_epoch") if snapshot == "best" else snapshot
        if wanted not in there:
            raise RunError(f"{path}: has no snapshot {snapshot!r}; there are: {', '.join(map(str, there)) or 'none'}")
        run.snapshot = there[int(wanted)]
        return run

    @property
    def title(self) -> str:
        """The backend's name as people write it."""
        return registry.get(self.backend).title

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict per epoch: epoch, iteration, train_loss, val_loss, l1, l2, pixel_accuracy, iou, learning_rate, seconds, ..."""
        return read_history(self.path / "history.csv")

    @property
    def summary(self) -> dict[str, Any]:
        """status, best_epoch, train_seconds, peak_memory_mb, parameters."""
        try:
            summary: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / 'summary.json'}: cannot be read: {error}") from error
        shapes = self._job["network"]["parameters"].values()
        return {**summary, "parameters": sum(int(np.prod(shape)) for shape in shapes)}

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset it was trained on. Raises DatasetError where it has gone, or another one lies there now."""
        dataset = Dataset.open(self._job["dataset"]["path"])
        if dataset.content_hash != self._job["dataset"]["content_hash"]:
            raise DatasetError(
                f"{dataset.path}: is not the dataset that {self.path} was trained on; its content differs"
            )
        return dataset

    @cached_property
    def layout(self) -> Layout:
        """How images go into this network and come out of it."""
        backend, mean = registry.get(self.backend), self._job["mean"]
        return Layout(
            backend.data_order, backend.channel_order, None if mean is None else np.array(mean, dtype=np.float32)
        )

    def worker(self) -> Worker:
        """The backend's process with this run's network and weights in it."""
        if self._worker is None or self._worker.closed:  # it may have died
            if self.snapshot is None:
                raise RunError(f"{self.path}: has no snapshot yet; train it first")
            worker = Worker(registry.get(self.backend), self.settings["threads"])
            kept = ("batch_size", "val_batch_size", "seed", "threads", "device", "lowering")
            spec = NetworkSpec(
                model=str(self.model.resolve()),
                input_shape=self.input_shape,
                label_shape=self.label_shape,
                solver=None,
                loss=None if self._job["network"]["own_loss"] else self.settings["loss"],
                **{key: self.settings[key] for key in kept},
            )
            try:
                worker.call("load", spec=spec.to_json())
                worker.call("restore", folder=str(self.snapshot.path.resolve()))
            except BaseException:
                worker.close()
                raise
            self._worker = worker
        return self._worker

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the images that it was trained on."""
        channels, height, width = self._job["input_shape"]
        return channels, height, width

    @property
    def label_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of their labels."""
        channels, height, width = self._job["label_shape"]
        return channels, height, width

    @property
    def model(self) -> Path:
        """Its network file."""
        return self.path / "model" / str(self.settings["model"])

    @cached_property
    def geometry(self) -> Geometry:
        """Which sizes of images its network keeps, and how it can be tiled. Raises ModelError where that cannot be told."""
        try:
            return Geometry.of(describe(self.model, self.input_shape))
        except NotLocal as error:
            raise ModelError(
                f"{self.model.name}: cannot tell what other sizes give: {error}; test images of the dataset's size"
            ) from error

    def predict(self, features: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Outputs (N, C, H, W float32, RGB) for images (N, C, H, W uint8, RGB) of any size that the network takes.

        Raises ModelError where the network cannot keep that height and width.
        """
        return inference.predict(self, features, Options(resize=False))

    def test_one(
        self, image: str | Path, resize: bool = True, pixel_conversion: PixelConversion = "clip", **options: Any
    ) -> Output:
        """The output for one image file, resized to the dataset's size or (``resize=False``) as it is.

        ``pixel_conversion``: ``clip`` cuts values to 0..255, ``normalize`` stretches them to it. Further options are ``pad``,
        ``tile``, ``channel_order`` and ``data_order``, see multiseg.inference.Options. Raises ImageError for an unreadable
        file or one with another number of channels, ModelError for a size that the network does not keep.
        """
        return inference.test_one(self, image, Options(resize, pixel_conversion=pixel_conversion, **options))

    def test_list(
        self,
        images: Iterable[str | Path],
        resize: bool = True,
        pixel_conversion: PixelConversion = "clip",
        failed: Callable[[Path, MultisegError], None] | None = None,
        **options: Any,
    ) -> list[Output]:
        """:meth:`test_one` for each image, those of one size together.

        ``failed`` is told of each image that cannot be tested, and why; the others are done. Without it the first such image
        raises its error.
        """
        outputs = []
        for found in inference.test_list(self, images, Options(resize, pixel_conversion=pixel_conversion, **options)):
            if isinstance(found, Output):
                outputs.append(found)
            elif failed is None:
                raise found.error
            else:
                failed(found.source, found.error)
        return outputs

    def test_db(
        self,
        path: str | Path,
        batch_size: int | None = None,
        each: Callable[[int, Output], None] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Loss and metrics over a database such as ``dataset.path / "val_db/features"`` with the labels beside it.

        Images are tested as they are stored, in a stream. ``each`` is given every position and output. Options are ``pad``,
        ``tile``, ``pixel_conversion`` and so on, see :meth:`test_one`. A dict of count, val_loss, l1, l2, pixel_accuracy,
        iou, seconds and images_per_second: measures are None without labels, val_loss also for images that are not of the
        dataset's size. Raises DatasetError where there is no database, or one that does not fit the network.
        """
        return inference.test_db(self, path, Options(resize=False, **options), batch_size, each)

    def layers(self, image: str | Path, resize: bool = True, pad: bool = False) -> Layers:
        """What every layer makes of an image, and every parameter, with their statistics. Raises as :meth:`test_one`."""
        from multiseg.layers import layers

        return layers(self, image, Options(resize, pad))

    def close(self) -> None:
        """End the backend's process, if one was started."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, backend={self.backend!r})"
