"""Prepare a training: layout, network specification, plan and initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from multiseg.dataset import Dataset
from multiseg.dataset.cropping import CENTRE, Crop, crop_shapes, written
from multiseg.dataset.fitting import Shape, is_mixed, mean_of, shapes_of, std_of
from multiseg.dataset.labels import are_colours, given_as, read_as_classes
from multiseg.errors import ModelError, SettingsError, WorkerError, setting
from multiseg.exporting import source
from multiseg.files import write_text
from multiseg.layout import Layout
from multiseg.model_files import reading
from multiseg.network import CLASSES, IMAGES, LabelKind, NetworkSpec, fixed_by_file
from multiseg.settings.initialisation import initial_weights
from multiseg.settings.loaded import LoadedSettings
from multiseg.settings.losses import NEUTRAL_LOSSES, complete_options, label_kind_of
from multiseg.settings.metrics import DIFFERENCES, defined_for
from multiseg.settings.resolved import Settings
from multiseg.training.plan import Plan
from multiseg.worker.client import Worker


def layout_of(settings: Settings, dataset: Dataset) -> Layout:
    """Return the layout in which the backend receives batches of this dataset."""
    stated = () if settings.ignore_index is None else (settings.ignore_index,)
    return Layout(
        settings.backend.data_order,
        settings.backend.channel_order,
        mean_of(dataset, settings.subtract_mean, settings.mean),
        colours=are_colours(shapes_of(dataset)[1]),
        std=std_of(dataset, settings.divide_std),
        given_as=given_as(stated, dataset.labels.ignore),
    )


def network_spec(settings: Settings, dataset: Dataset) -> NetworkSpec:
    """Return the network specification for these settings and this dataset: for its training images, or crops of them."""
    shapes = crop_shapes(settings.crop, *shapes_of(dataset))
    return replace(spec_of(settings, *shapes, dataset.labels.kind), mixed_sizes=is_mixed(dataset))


def crop_of(settings: LoadedSettings, dataset: Dataset, layout: Layout) -> Crop | None:
    """Return the crop of training images; None for whole images.

    Areas outside the image are filled with the mean that is subtracted, or 0 without one, rounded for 8-bit images. Class indices
    of pixels are filled with a label that counts in no loss, if there is one.
    """
    if settings.crop is None:
        return None
    shape, label_shape = shapes_of(dataset)
    means = np.zeros(shape[0]) if layout.mean is None else layout.mean_per_channel()
    ignored = [settings.ignore_index, *settings.network.get("ignored", ())]
    counts = settings.network.get("labels") == CLASSES and label_shape[1:] != (1, 1)
    label_fill = next((value for value in ignored if value is not None), None) if counts else None
    return Crop(settings.crop, tuple(map(float, means)), label_fill)


def spec_of(settings: Settings, shape: Shape, label_shape: Shape, labels: LabelKind = IMAGES) -> NetworkSpec:
    """Return the network specification for these settings, image and label shapes (C, H, W), and kind of labels."""
    return NetworkSpec(
        model=str(settings.model),
        input_shape=shape,
        label_shape=label_shape,
        solver=settings.solver,
        loss=settings.loss,
        loss_options=settings.loss_options,
        batch_size=settings.batch_size,
        val_batch_size=settings.val_batch_size,
        seed=settings.seed,
        threads=settings.threads,
        device=settings.device,
        lowering=settings.lowering,
        compile=settings.compile,
        precision=settings.precision,
        frozen=settings.freeze,
        recipe=settings.recipe,
        multipliers=settings.multipliers,
        accumulate=settings.accumulate,
        labels=label_kind_of(settings.loss, labels),
        ignore_index=settings.ignore_index,
        class_weights=settings.class_weights,
    )


def load(
    worker: Worker, settings: Settings, spec: NetworkSpec, module: str | None, keep_loss: bool = False
) -> tuple[Settings, NetworkSpec, dict[str, Any]]:
    """Load the network in ``worker``; return the settings, the specification, and the network's description of itself.

    In the recipe `equal`, the loss of class indices is that of NEUTRAL_LOSSES for the way in which the network reads them; with
    ``keep_loss`` it is the network file's own, as in runs of earlier versions.
    """
    try:
        described = worker.call("load", spec=spec.to_json(), module=module)
    except (ModelError, WorkerError) as error:
        if settings.crop is None:
            raise
        raise type(error)(
            f"{error.template} (with {setting('crop', written(settings.crop))}: if the network does not take images of this "
            "size, choose another crop)"
        ) from error
    kind: LabelKind = described["labels"]
    kept = keep_loss and kind == CLASSES
    loss = NEUTRAL_LOSSES[kind]
    if settings.recipe == "equal" and settings.loss is None and not kept and loss in settings.backend.losses:
        settings = replace(settings, loss=loss, loss_options=complete_options(loss, {}))
        spec = replace(spec, loss=loss, loss_options=settings.loss_options, labels=kind)
        described = worker.call("load", spec=spec.to_json(), module=module)
    return settings, spec, described


def set_initial_weights(worker: Worker, settings: Settings, spec: NetworkSpec, network: Mapping[str, Any]) -> None:
    """Set the weights of the network in ``worker`` to the initialisation of the recipe `equal` for the seed of the settings.

    Weights that the file fixes keep the file's values. An array that layers share is drawn once. ``network`` is the network's
    description of itself.
    """
    weights = worker.call("get_weights")
    shared = network.get("shared", ())
    first = {name: names[0] for names in shared for name in names}
    shapes = {name: value.shape for name, value in weights.items() if first.get(name, name) == name}
    channels = (spec.input_shape[0], spec.label_shape[0])
    initial = initial_weights(shapes, settings.seed, settings.backend.channel_order, channels)
    fixed = fixed_by_file(spec, weights, network["trained"], shared)
    drawn = {name: value for name, value in initial.items() if name not in fixed}
    drawn |= {name: drawn[owner] for name, owner in first.items() if owner in drawn}
    worker.call("set_weights", weights={**weights, **drawn})


def check_whole_images(worker: Worker, settings: LoadedSettings, dataset: Dataset, layout: Layout) -> None:
    """Raise ModelError if a network that trains on crops does not take a whole validation image.

    Computes the output and the loss of one image, before anything is trained.
    """
    if settings.crop is None or settings.val_crop is not None or not len(dataset.val):
        return
    feature, label = dataset.val[0]
    size = feature.shape[1:]
    if size == settings.crop or label is None:
        return
    try:
        output, _ = worker.call("evaluate", features=layout.features(feature[None]), labels=layout.labels(label[None]))
        reason = f"its output is {written(layout.output(output).shape[2:])}, the labels are {written(label.shape[1:])}"
        fits = label.shape[1:] in ((1, 1), layout.output(output).shape[2:])
    except (ModelError, WorkerError) as error:
        reason, fits = error.template, False
    if not fits:
        raise ModelError(
            f"{settings.model.name}: trains on crops of {written(settings.crop)}, but cannot be validated on whole images of "
            f"{written(size)} pixels (height x width): {reason}; add {setting('val_crop', CENTRE)}, or use images of a size that "
            "the network takes"
        )


def check_used(settings: Settings, dataset: Dataset, network: Mapping[str, Any]) -> None:
    """Raise SettingsError if the job states a metric, or a threshold, that is not defined for labels as the network reads them.

    ``network`` is its description of itself.
    """
    kind: LabelKind = network["labels"]
    usable = defined_for(kind, shapes_of(dataset)[1][1:] == (1, 1), bool(network.get("logits")))
    if settings.metric is not None and settings.metric not in usable:
        what = "class indices" if kind == CLASSES else "logits" if settings.metric in DIFFERENCES else "images"
        raise SettingsError(
            f"{setting('metric', settings.metric)}: is not defined for {what}, which {settings.model.name} is trained on; choose "
            f"one of {', '.join(usable)}"
        )
    if kind == CLASSES and settings.threshold != dataset.labels.foreground.threshold:
        raise SettingsError(
            f"{setting('threshold', settings.threshold)}: divides images into foreground and background, and "
            f"{settings.model.name} has a score for each class, which is not compared with a threshold; leave it out"
        )


def plan_of(settings: LoadedSettings, dataset: Dataset) -> Plan:
    """Return the plan of a training.

    Raises SettingsError if one update uses more images than the dataset has, and for a last batch of one image where a layer
    needs several.
    """
    size, count = settings.batch_size * settings.accumulate, len(dataset.train)
    if size > count:
        times = f" x {setting('accumulate', settings.accumulate)}" if settings.accumulate > 1 else ""
        raise SettingsError(
            f"{setting('batch_size', settings.batch_size)}{times}: is larger than the dataset, "
            f"{count} training images; choose a smaller batch"
        )
    _check_last_batch(settings, count)
    return Plan(count, size, settings.epochs, settings.val_interval, settings.snapshot_interval)


def _check_last_batch(settings: LoadedSettings, count: int) -> None:
    """Raise SettingsError if a batch of one image occurs and batch normalization needs several for its statistics."""
    layers, size = settings.network.get("single_values") or [], settings.batch_size
    if not layers or (size > 1 and count % size != 1):
        return
    above, below = range(size + 1, count + 1), range(size - 1, 1, -1)
    other = next((one for one in (*above, *below) if count % one != 1), None)
    fix = f"choose e.g. {setting('batch_size', other)}" if other else "use a dataset of at least 2 training images"
    which = "batches have" if size == 1 else "the last batch of an epoch has"
    raise SettingsError(
        f"{setting('batch_size', size)}: of {count} training images, {which} 1 image, over which layer {layers[0]!r} (batch "
        f"normalization of one value per channel) has no statistics; {fix}, or use another number of images"
    )


def export(settings: Settings, spec: NetworkSpec, path: Path) -> None:
    """Export a model of another backend to a network file of this backend.

    Raises ModelError if it cannot be exported, or if its output does not fit the labels.
    """
    topology = reading.describe(settings.model, spec.input_shape)
    text = source.source(settings.backend, topology, read_as_classes(topology, spec.label_shape, spec.labels))
    if len(topology.outputs) == 1 and not spec.fits(output := topology.shapes[topology.outputs[0]]):
        error = f"its output is {output} (C, H, W), the labels are {spec.label_shape}"
        raise ModelError("; ".join([f"{settings.model}: {error}", *topology.notes]))
    path.parent.mkdir(exist_ok=True)
    write_text(path, text)
