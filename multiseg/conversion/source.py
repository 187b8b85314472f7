"""The source of a conversion: the weights of a run or a file, with what is known about their network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from multiseg import backend as registry
from multiseg.backend import Backend, ChannelOrder
from multiseg.conversion.frameworks import Frameworks, InputShape
from multiseg.conversion.parameters import ParameterSet
from multiseg.errors import ModelError, SettingsError
from multiseg.exporting import source
from multiseg.model_files import kinds
from multiseg.model_files.weights_file import Array, NeutralWeights
from multiseg.run.run import Run
from multiseg.run.state import neutral_of
from multiseg.topology import Shape, Topology


@dataclass(frozen=True)
class Source:
    """Weights with their metadata.

    Where known: the network's backend, file and topology, the shapes (C, H, W) of its images and labels, and the channel
    ``order`` of the images that it is fed.
    """

    title: str
    content: NeutralWeights
    order: ChannelOrder | None
    backend: Backend | None = None
    network: Path | None = None
    topology: Topology | None = None
    input_shape: InputShape | None = None
    label_shape: Shape | None = None

    @property
    def weights(self) -> Mapping[str, Array]:
        """The arrays by the source's names of parameters."""
        return self.content.weights

    @property
    def parameters(self) -> ParameterSet:
        """The parameters for matching. Raises ModelError if the weights are not those of the network."""
        shapes = {name: value.shape for name, value in self.weights.items()}
        if self.topology is not None:
            for name, shape in self.topology.weights.items():
                if shapes.get(name) != shape:
                    actual = f"with the shape {shapes[name]}" if name in shapes else "missing"
                    raise ModelError(
                        f"{self.title}: does not belong to the network in {self.topology.source}, which has {name!r} {shape}; "
                        f"here it is {actual}"
                    )
        return ParameterSet(self.title, shapes, self.topology)


def of_run(run: Run, state: bool, described: bool) -> Source:
    """Return a run's snapshot as the source, with the solver's ``state`` and the network's topology on request."""
    backend = registry.get(run.backend)
    content = neutral_of(run) if state else NeutralWeights(run.worker().call("get_weights"), backend.channel_order)
    return Source(
        title=str(run.path),
        content=content,
        order=backend.channel_order,
        backend=backend,
        network=run.model,
        topology=run.topology if described else None,
        input_shape=run.input_shape,
        label_shape=run.label_shape,
    )


def of_file(
    file: Path, network: Path | None, input_shape: InputShape | None, label_shape: Shape | None, frameworks: Frameworks
) -> Source:
    """Return a weights file as the source; without ``network`` a network in the file itself is used."""
    own, topology = network, None
    if network is not None:
        topology = frameworks.describe(network, input_shape)
    elif kinds.is_network(file):
        try:
            own, topology = file, frameworks.describe(file, input_shape)
        except ModelError:
            if input_shape is not None:
                raise
            own = None  # the shape of its images is unknown, so that only its weights can be used
    backend = None if own is None else kinds.kind_of(own, "network")[0]
    shape = input_shape if topology is None else image_shape(topology)
    content = frameworks.read(file, own, shape)
    return Source(
        title=str(file),
        content=content,
        order=content.channel_order or (backend.channel_order if backend else None),
        backend=backend,
        network=own,
        topology=topology,
        input_shape=shape,
        label_shape=label_shape,
    )


def image_shape(topology: Topology) -> InputShape:
    """Return the shape of the network's images (C, H, W)."""
    channels, height, width = topology.input_shape
    return channels, height, width


def makes_colours(topology: Topology, label_shape: Shape | None, losses: Iterable[str | None]) -> bool:
    """Whether a network's output is an image with three colour channels, and not the scores of three classes.

    Decided by the shape of the labels if it is known, else by the last layer and by the ``losses`` that network files describe.
    Raises SettingsError if that is not enough.
    """
    shape = topology.shapes[topology.outputs[0]]
    if len(shape) != 3 or shape[0] != 3:
        return False
    if label_shape is not None:
        return label_shape[0] == 3
    last = next((layer for layer in topology.layers if topology.outputs[0] in layer.outputs), None)
    networks = [replace(topology, loss=loss) for loss in losses if loss]
    if (last and last.type in ("Softmax", "LogSoftmax")) or any(map(source.of_classes, networks)):
        return False
    if any("difference" in (network.loss or "") for network in networks):  # a word of the backends' readers
        return True
    raise SettingsError(
        f"{topology.source}: cannot tell whether the three channels of its output are colours or scores of classes; specify "
        'label_shape=(channels, height, width), or channels="keep"'
    )
