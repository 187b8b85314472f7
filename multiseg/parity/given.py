"""Weights that a check is given, by a network's names and for images in RGB."""

from __future__ import annotations

from pathlib import Path

from multiseg.conversion.channels import swapped
from multiseg.conversion.mapping import Side, mapped
from multiseg.dataset import Dataset
from multiseg.errors import ModelError
from multiseg.model_files import reading
from multiseg.reference.bounded import Array
from multiseg.run.reading import is_run
from multiseg.run.run import Run
from multiseg.topology import Topology


def run_of(path: Path) -> Run | None:
    """The run in a folder, where it is a run's."""
    return Run.open(path) if is_run(path) else None


def colour_output(dataset: Dataset, topology: Topology) -> bool:
    """Whether the network makes images of three colours: its labels are such."""
    label, made = dataset.train.label_shape, topology.shapes[topology.outputs[0]]
    return label is not None and label[0] == 3 and made == label


def read(given: Path | Run, network: Path, topology: Topology, dataset: Dataset) -> dict[str, Array]:
    """Weights of a file or a run for the network that ``topology`` describes, by its names; ``network`` is that one's file.

    Raises ModelError where they do not fit.
    """
    run = run_of(given) if isinstance(given, Path) else given
    if run is not None:
        with run:
            found, names, order = run.worker().call("get_weights"), run.topology, run.layout.channel_order
        source = Side(str(run.path), {name: value.shape for name, value in found.items()}, names)
    else:
        assert isinstance(given, Path)
        shape = topology.input_shape
        neutral = reading.read_neutral(given, network, (shape[0], shape[1], shape[2]))
        found, order = dict(neutral.weights), neutral.channel_order or "RGB"
        source = Side(str(given), {name: value.shape for name, value in found.items()})
    matched = mapped(source, Side(topology.source, topology.weights, topology), {})
    weights = {name: found[own] for name, own in matched.names.items()}
    if order != "RGB":
        try:
            weights = swapped(topology, weights, topology.input_shape[0] == 3, colour_output(dataset, topology))
        except ModelError as error:
            raise ModelError(f"{source.title}: is of a network that is fed {order}; {error}") from error
    return weights
