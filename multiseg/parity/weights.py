"""The weights that a parity check reads from runs and files, by a network's names and for images in RGB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multiseg.conversion.channels import reordered
from multiseg.conversion.matching import ALL_OF_TARGET, match_parameters
from multiseg.conversion.parameters import ParameterSet
from multiseg.dataset.labels import are_colours
from multiseg.errors import ModelError
from multiseg.model_files import reading
from multiseg.parity.tying import arrays_of, with_all_names
from multiseg.reference.bounded import Array
from multiseg.run.reading import is_run
from multiseg.run.run import Run
from multiseg.topology import Topology


def run_of(path: Path) -> Run | None:
    """Return the run in a folder, None if the path is not a run folder."""
    return Run.open(path) if is_run(path) else None


def has_colour_output(label_shape: Sequence[int], topology: Topology) -> bool:
    """Whether the network's output is an image with three colour channels, as labels of ``label_shape`` (C, H, W) are."""
    return are_colours(label_shape) and topology.shapes[topology.outputs[0]] == tuple(label_shape)


def read_weights(source: Path | Run, network: Path, topology: Topology, label_shape: Sequence[int]) -> dict[str, Array]:
    """Return the weights of a file or a run by the names of the network that ``topology`` describes; ``network`` is its file.

    ``label_shape`` (C, H, W) is that of the labels.

    Raises ModelError if they do not fit.
    """
    run = run_of(source) if isinstance(source, Path) else source
    if run is not None:
        with run:
            values, description, order = run.worker().call("get_weights"), run.topology, run.layout.channel_order
        title = str(run.path)
    else:
        assert isinstance(source, Path)
        shape = topology.input_shape
        neutral = reading.read_neutral(source, network, (shape[0], shape[1], shape[2])).without_prefix(topology.weights)
        values, description, order, title = dict(neutral.weights), None, neutral.channel_order or "RGB", str(source)
    own = ParameterSet(title, {name: value.shape for name, value in values.items()}, description)
    matching = match_parameters(own, ParameterSet(topology.source, arrays_of(topology), topology), ALL_OF_TARGET)
    colours = topology.input_shape[0] == 3, has_colour_output(label_shape, topology)
    try:
        return reordered(topology, with_all_names(topology, matching.take(values)), order, "RGB", colours)
    except ModelError as error:
        raise ModelError(f"{title}: belongs to a network that is fed {order}; {error}") from error
