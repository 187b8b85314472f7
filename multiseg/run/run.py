"""Read a run folder and test with its trained network. The files of the folder are listed in multiseg.run.names."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg import backend as registry
from multiseg.dataset import Dataset
from multiseg.dataset.cropping import Size
from multiseg.dataset.dataset import FLOAT, HIGH_BYTE
from multiseg.dataset.foreground import THRESHOLD, Foreground
from multiseg.dataset.labels import Labels, are_colours, given_as, ignored
from multiseg.dataset.location import is_url
from multiseg.errors import DatasetError, ModelError, MultisegError, RunError, setting
from multiseg.images import Exif, PixelConversion
from multiseg.inference import database, predictor, testing
from multiseg.inference.layers import Layers
from multiseg.inference.options import Options
from multiseg.inference.output import Output
from multiseg.layout import Layout
from multiseg.model_files.reading import describe
from multiseg.network import CLASSES, NetworkSpec
from multiseg.run import names
from multiseg.run.history_files import export_history
from multiseg.run.processes import Processes
from multiseg.run.reading import read_history, read_job, read_summary
from multiseg.run.snapshots import Snapshot, snapshots
from multiseg.settings.binary import foreground_of_outputs
from multiseg.settings.step import DEFAULTS
from multiseg.topology import Topology
from multiseg.topology.geometry import Geometry, NotLocal
from multiseg.worker import pool
from multiseg.worker.client import Worker


class Run:
    """A trained network with its settings and history, and methods to test with its weights.

    The first test starts the backend's process; ``close`` (or a ``with`` block) ends it.
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
        self._begun: Worker | None = None  # started, and without the network
        self._starting, self._pid = threading.Lock(), os.getpid()
        self.processes: Processes | None = None  # a bound on those of several runs

    @classmethod
    def open(cls, folder: str | Path, snapshot: str | float = "last") -> Run:
        """Open a run folder, to test with its ``last`` snapshot, its ``best`` one, or that of a given epoch (2, or 2.5).

        Raises RunError if the folder is not a run folder, or if it has no such snapshot.
        """
        path = Path(folder)
        run = cls(path, None)
        by_epoch = {stored.epoch: stored for stored in snapshots(path)}
        if snapshot == "last":
            run.snapshot = by_epoch[max(by_epoch)] if by_epoch else None
            return run
        epoch = run.summary.get("best_epoch") if snapshot == "best" else snapshot
        if epoch not in by_epoch:
            raise RunError(
                f"{path}: has no snapshot {snapshot!r}; there are: {', '.join(map(str, by_epoch)) or 'none'}"
            )
        run.snapshot = by_epoch[epoch]
        return run

    @property
    def title(self) -> str:
        """The display name of the backend."""
        return registry.get(self.backend).title

    @property
    def description(self) -> str:
        """Backend, run name and epoch of the snapshot, for titles."""
        return f"{self.title} (run {self.name}, epoch {self.snapshot.epoch if self.snapshot else 0})"

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict per epoch and validation: epoch, iteration, train_loss, val_loss, l1, l2, pixel_accuracy, iou, ..."""
        return read_history(self.path / names.HISTORY)

    def export_history(self, path: str | Path) -> Path:
        """Write the history to a .csv file, or to a .parquet file with pyarrow (the extra ``parquet``); return the path.

        Raises SettingsError for another extension, or if pyarrow is not installed.
        """
        return export_history(self.path, path)

    @property
    def summary(self) -> dict[str, Any]:
        """Status, best_epoch, stopped_early, train_seconds, peak_memory_mb, number of parameters, and start weights, by key."""
        summary = read_summary(self.path)
        count = sum(math.prod(shape) for shape in self._job["network"]["parameters"].values())
        return {**summary, "parameters": count, "weights": self._job.get("weights")}

    @cached_property
    def dataset(self) -> Dataset:
        """The training dataset. Raises DatasetError if it is missing, or if its content has changed."""
        path = self._job["dataset"]["path"]
        if not is_url(path) and not Path(path).is_dir():
            raise DatasetError(
                f"{path}: no such dataset folder, with which {self.path} was trained; if it was moved, name it with "
                f"{setting('dataset', example='DIR')}"
            )
        return self._checked(Dataset.open(path))

    def use_dataset(self, folder: str | Path) -> None:
        """Read the training dataset from another folder, after it was moved. Raises DatasetError if its content differs."""
        self.__dict__["dataset"] = self._checked(Dataset.open(folder))

    def _checked(self, dataset: Dataset) -> Dataset:
        if dataset.content_hash != self._job["dataset"]["content_hash"]:
            raise DatasetError(
                f"{dataset.path}: is not the dataset that {self.path} was trained on; its content differs"
            )
        return dataset

    @cached_property
    def values(self) -> str:
        """What the values of the training images were, see Dataset.values.

        An older run does not record it; its dataset is read if it is still there, and otherwise held 8-bit images.
        """
        recorded = self._job["dataset"].get("values")
        if recorded is None:
            with suppress(MultisegError):
                recorded = FLOAT if self.dataset.values == FLOAT else None
        return HIGH_BYTE if recorded is None else str(recorded)

    @property
    def exif(self) -> Exif:
        """Whether the training images were turned by their EXIF orientation; test images are treated alike."""
        return "apply" if self._job["dataset"].get("exif") == "apply" else "ignore"

    @cached_property
    def layout(self) -> Layout:
        """The conversion of images to this network's input and of its output to images."""
        backend, mean, std = registry.get(self.backend), self._job.get("mean"), self._job.get("std")
        return Layout(
            backend.data_order,
            backend.channel_order,
            None if mean is None else np.array(mean, dtype=np.float32),
            colours=are_colours(self.label_shape),
            std=None if std is None else np.array(std, dtype=np.float32),
            given_as=given_as(self.ignored_by_loss, self.labels.ignore if self.labels else None),
        )

    def worker(self) -> Worker:
        """Return the backend's process with this run's network and weights loaded, starting it if necessary.

        All threads share one process; a forked child starts its own.
        """
        with self._lock():
            if self._worker is None or self._worker.closed:  # not started, died, or owned by the parent process
                self._worker = self._start()
            return self._worker

    def adopt(self, worker: Worker) -> None:
        """Use a process of the backend that multiseg.run.beginning started, and end it with the run."""
        self._begun = worker

    def begin(self) -> None:
        """Start the backend's process, if there is none, and do not wait until it has loaded the framework.

        A failure is reported where the process is used.
        """
        with self._lock(), suppress(MultisegError):
            if self._worker is None and self._begun is None and self.snapshot is not None:
                self._begun = self._process()

    def _lock(self) -> threading.Lock:
        """Return the lock of what starts and gives up the process."""
        if self._pid != os.getpid():  # another thread may have held it at the fork
            self._starting, self._pid = threading.Lock(), os.getpid()
        return self._starting

    def _process(self) -> Worker:
        """Return a process of the backend, which may not have loaded the framework yet."""
        backend, threads = registry.get(self.backend), self.settings["threads"]
        if self.processes:
            return self.processes.obtain(self, backend, threads)
        return pool.start(backend, threads, wait=False)

    def _start(self) -> Worker:
        if self.snapshot is None:
            raise RunError(f"{self.path}: has no snapshot yet; train it first")
        worker, self._begun = self._begun, None
        if worker is None or worker.closed:
            worker = self._process()
        try:
            self.snapshot.verify()  # while the framework is loaded
            worker.call("load", spec=self.spec().to_json())
            worker.call("restore", folder=str(self.snapshot.path.resolve()))
        except BaseException:
            worker.close()
            raise
        return worker

    def give_up(self) -> Worker | None:
        """Return the backend's process without ending it, None if there is none; the next test obtains another one."""
        with self._lock():
            worker, self._worker, self._begun = self._worker or self._begun, None, None
            return worker

    def spec(self, trains: bool = False) -> NetworkSpec:
        """Return the network specification for the backend: for prediction, or with ``trains`` for training."""
        settings = self.settings
        common_keys = ("batch_size", "val_batch_size", "seed", "threads", "device", "lowering")
        training_keys = ("solver", "recipe", "multipliers", "accumulate")
        return NetworkSpec(
            model=str(self.model.resolve()),
            input_shape=self.input_shape,
            label_shape=self.label_shape,
            loss=None if self._job["network"]["own_loss"] else settings["loss"],
            loss_options=settings.get("loss_options", {}),
            **{key: settings[key] for key in common_keys},
            **({key: settings[key] for key in training_keys} if trains else {"solver": None}),
            **({key: settings.get(key, value) for key, value in DEFAULTS.items()} if trains else {}),
            frozen=tuple(settings["freeze"]) if trains else (),
            labels=(self.labels or Labels()).kind,
            mixed_sizes=self.mixed_sizes,
            ignore_index=settings.get("ignore_index"),
            class_weights=tuple(settings.get("class_weights", ())),
        )

    @property
    def mixed_sizes(self) -> bool:
        """Whether the training images differ in size; ``input_shape`` is then that of the first one."""
        return bool(self._job.get("mixed_sizes"))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the images that the network is tested with: those of the dataset, or their central crops."""
        channels, height, width = self._job["input_shape"]
        return channels, height, width

    @property
    def val_crop(self) -> Size | None:
        """The size (height, width) of the central part of each image that is validated and tested; None for whole images."""
        size = self.settings.get("val_crop")
        return None if size is None else (int(size[0]), int(size[1]))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the dataset's images, to which test images are resized: before the central crop."""
        channels, height, width = self._job.get("image_shape", self._job["input_shape"])
        return channels, height, width

    @property
    def label_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the training labels."""
        channels, height, width = self._job["label_shape"]
        return channels, height, width

    @cached_property
    def labels(self) -> Labels | None:
        """How this network reads labels; None for older runs, whose job.json has no entry for it."""
        values = self._job.get("labels")
        return None if values is None else Labels.from_json(values, str(self.path / names.JOB))

    @property
    def classifies(self) -> bool:
        """Whether the network scores the classes of whole images: its labels are one class index for each."""
        return self.labels is not None and self.labels.kind == CLASSES and self.label_shape == (1, 1, 1)

    @property
    def foreground(self) -> Foreground:
        """Which labels and which outputs the metrics of binary masks count as foreground."""
        threshold = self.settings.get("threshold", THRESHOLD)
        return foreground_of_outputs(self.labels or Labels(), threshold, self._job["network"])

    @property
    def ignored_by_loss(self) -> list[int]:
        """The labels that the network's loss does not count."""
        return list(self._job["network"].get("ignored") or ())

    @property
    def ignored(self) -> list[int]:
        """The labels that neither loss nor metrics count: those that the network's loss ignores, and the dataset's."""
        return ignored(self._job["network"], self.labels)

    @property
    def classes(self) -> int | None:
        """The number of classes that the network's loss distinguishes; None if it takes no class indices, or is unknown."""
        count = self._job["network"].get("classes")
        return None if count is None else int(count)

    @property
    def model(self) -> Path:
        """The network file that the backend loaded: the exported one if the job specified a model of another backend."""
        return self.path / names.MODEL / str(self.settings.get("exported") or self.settings["model"])

    @cached_property
    def topology(self) -> Topology:
        """The neutral description of the network, for images of the size of the training images.

        Raises ModelError if the file cannot be described.
        """
        needed = registry.get(self.backend).reader_needs_framework and self.snapshot is not None
        return describe(self.model, self.input_shape, self.worker() if needed else None)

    @property
    def geometry(self) -> Geometry:
        """The image sizes that the network preserves, and how it can be tiled. Raises ModelError if they cannot be determined."""
        if isinstance(self._geometry, MultisegError):
            raise self._geometry
        return self._geometry

    @cached_property
    def _geometry(self) -> Geometry | MultisegError:
        """The geometry, or the error: errors are cached too, because describing a network may start a process."""
        try:
            return Geometry.of(self.topology)
        except NotLocal as error:
            return ModelError(
                f"{self.model.name}: cannot determine the output for other sizes: {error}; test images of the dataset's size"
            )
        except MultisegError as error:
            return error

    def predict(self, features: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return outputs (N, C, H, W float32, RGB) for images (N, C, H, W, RGB) of any size that the network accepts.

        Values are those of the training images: 0 to 255, or as its float data has them. Raises ModelError if the network does
        not preserve that height and width.
        """
        return predictor.predict(self, features, Options(resize=False))

    def test_one(
        self, image: str | Path, resize: bool = True, pixel_conversion: PixelConversion = "clip", **options: Any
    ) -> Output:
        """Return the output for one image file, resized to the dataset's size or (``resize=False``) in its own size.

        Values of more than 8 bits, and of .npy files, are kept for a network that was trained on such values; one that was
        trained on 8-bit images refuses them. ``pixel_conversion``: ``clip`` clips values to 0..255, ``normalize`` scales them to
        that range. Further options are ``pad``, ``tile``, ``exif``, ``max_pixels``, ``channel_order`` and ``data_order``, see
        multiseg.inference.Options. Raises ImageError for a file that cannot be read or has another number of channels,
        ModelError for a size that the network does not preserve.
        """
        return testing.test_one(self, image, Options(resize, pixel_conversion=pixel_conversion, **options))

    def test_list(
        self,
        images: Iterable[str | Path],
        resize: bool = True,
        pixel_conversion: PixelConversion = "clip",
        failed: Callable[[Path, MultisegError], None] | None = None,
        **options: Any,
    ) -> list[Output]:
        """Return the outputs for a list of image files, see :meth:`test_one`; images of equal size are tested in batches.

        ``failed`` is called with the path and the error of each image that cannot be tested, and the others are still tested.
        Without it, the first such image raises its error.
        """
        outputs = []
        for result in testing.test_list(self, images, Options(resize, pixel_conversion=pixel_conversion, **options)):
            if isinstance(result, Output):
                outputs.append(result)
            elif failed is None:
                raise result.error
            else:
                failed(result.source, result.error)
        return outputs

    def test_db(
        self,
        path: str | Path,
        batch_size: int | None = None,
        each: Callable[[int, Output], None] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Return loss and metrics over a database such as ``dataset.path / "val_db/features"``, with the labels beside it.

        The folder of a split stands for its features, that of a dataset for its validation images.

        Images are streamed in their stored size. ``each`` is called with every position and output. Options are ``pad``,
        ``tile``, ``pixel_conversion`` and so on, see :meth:`test_one`. Returns a dict of count, val_loss, the metrics of
        multiseg.settings.metrics (l1, l2, pixel_accuracy, iou, ...), seconds and images_per_second: metrics are None without
        labels, val_loss also for images that are not of the dataset's size. For class indices it also has ``confusion``, the
        counts by class (rows) and predicted class (columns), and ``per_class``, a list of dicts of class, name, accuracy, iou,
        dice and pixels. Raises DatasetError if there is no database, or if it does not fit the network.
        """
        return database.test_db(self, path, Options(resize=False, **options), batch_size, each)

    def layers(
        self,
        image: str | Path,
        resize: bool = True,
        pad: bool = False,
        exif: Exif | None = None,
        max_pixels: int | None = None,
    ) -> Layers:
        """Return every layer's activations for an image, and all parameters, with statistics. Raises like :meth:`test_one`."""
        from multiseg.inference.layers import layers

        return layers(self, image, Options(resize, pad, exif=exif, max_pixels=max_pixels))

    def close(self) -> None:
        """End the backend's process, if one was started."""
        for worker in (self._worker, self._begun):
            if worker is not None:
                worker.close()
        self._worker = self._begun = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, backend={self.backend!r})"
