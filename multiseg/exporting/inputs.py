"""Resolve what is exported: a network file, a run, or a described network."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from multiseg.layout import Floats
from multiseg.model_files.reading import describe
from multiseg.run.reading import is_run
from multiseg.run.run import Run
from multiseg.settings.resolved import OWN_MEAN
from multiseg.topology import Topology
from multiseg.topology.cutting import cut


def run_of(given: Path | Run | Topology, stack: ExitStack) -> Run | None:
    """Return the run, or the run in a folder, which ``stack`` closes; None if it is neither."""
    if isinstance(given, Run):
        return given
    if isinstance(given, Path) and is_run(given):
        return stack.enter_context(Run.open(given))
    return None


def file_of(given: Path | Run | Topology | None) -> Path | None:
    """Return the file or folder that is read; None for a described network."""
    return given.path if isinstance(given, Run) else given if isinstance(given, Path) else None


def described(
    network: Path | Run | Topology,
    run: Run | None,
    input_shape: tuple[int, int, int] | None,
    outputs: Sequence[str] = (),
) -> Topology:
    """Return the topology of a network for images of ``input_shape`` (C, H, W); default for a run: the shape of its dataset.

    That of a run, and a described one, is cut to ``outputs``; a file of choices states its own.
    """
    if isinstance(network, Topology):
        return cut(network, outputs)
    if run is None:
        assert isinstance(network, Path)
        return describe(network, input_shape)
    return cut(run.topology if input_shape is None else describe(run.model, input_shape), outputs)


def with_mean_of(run: Run | None, topology: Topology) -> Topology:
    """Return the topology with the mean that ``run`` subtracts in the place of its network file's; unchanged without a run.

    A mean of the dataset is a note, because a job subtracts that of its own dataset by default; a deviation always is one.
    """
    if run is None:
        return topology
    mean, std = run.layout.mean, run.layout.std
    notes = []
    if mean is not None and run.settings["subtract_mean"] != OWN_MEAN:
        of = "image of its dataset, on average " if mean.ndim == 3 else "of its dataset, "
        notes.append(
            f"run {run.name} subtracts the mean {of}{_listed(mean)}, from images before the network; this file does not do it"
        )
    if std is not None:
        values, _, order = _listed(std).partition(", ")
        notes.append(
            f"run {run.name} divides images by the standard deviation ({values}{order and ', '}{order}) before the network, "
            f"after the mean is subtracted; this file does not do it; train with it as --divide-std {values}"
        )
    own = mean is not None and run.settings["subtract_mean"] == OWN_MEAN
    topology_mean = tuple(map(float, mean[::-1] if len(mean) == 3 else mean)) if mean is not None and own else None
    return replace(topology, mean=topology_mean, notes=(*topology.notes, *notes))


def _listed(values: Floats) -> str:
    """Return numbers (C,) or the averages of an image (C, H, W), RGB, as text, colours as B, G, R."""
    channels = values.reshape(len(values), -1).mean(1)
    numbers = ",".join(f"{value:.9g}" for value in (channels[::-1] if len(channels) == 3 else channels))
    return f"{numbers}, colours as B,G,R" if len(channels) == 3 else numbers
