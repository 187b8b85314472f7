"""What is converted: a run's weights, or those in a file, with what is known of their network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from multiseg import backend as registry
from multiseg.backend import Backend, ChannelOrder
from multiseg.conversion.frameworks import Frameworks, InputShape
from multiseg.conversion.mapping import Side
from multiseg.errors import ModelError, SettingsError
from multiseg.exporting import source
from multiseg.model_files import kinds
from multiseg.model_files.weights_file import Array, NeutralWeights
from multiseg.run.run import Run
from multiseg.run.state import neutral_of
from multiseg.topology import Shape, Topology


@dataclass(frozen=True)
class Source:
    """Weights with what is said of them, and of their network the file, the backend, the description and the shapes of images and
    labels, where known. ``order`` is that of the colours it is fed."""

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
        """By the names that the source has."""
        return self.content.weights

    @property
    def side(self) -> Side:
        """As it is mapped. Raises ModelError where the weights are not those of the network."""
        shapes = {name: value.shape for name, value in self.weights.items()}
        if self.topology is not None:
            for name, shape in self.topology.weights.items():
                if shapes.get(name) != shape:
                    has = f"it is {shapes[name]} there" if name in shapes else "there is none"
                    raise ModelError(
                        f"{self.title}: is not of the network in {self.topology.source}, which has {name!r} {shape}; {has}"
                    )
        return Side(self.title, shapes, self.topology)


def of_run(run: Run, state: bool, described: bool) -> Source:
    """A run's snapshot, with the solver's ``state`` and the network's description where they are wanted."""
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
    """A weights file; where it holds a network as well and none is given, that is its own."""
    own, topology = network, None
    if network is not None:
        topology = frameworks.describe(network, input_shape)
    elif kinds.is_network(file):
        try:
            own, topology = file, frameworks.describe(file, input_shape)
        except ModelError:
            if input_shape is not None:
                raise
            own = None  # it does not say for which images it is: weights are all there is to know
    backend = None if own is None else kinds.kind_of(own, "network")[0]
    shape = input_shape if topology is None else image_shape(topology)
    found = frameworks.read(file, own, shape)
    return Source(
        title=str(file),
        content=found,
        order=found.channel_order or (backend.channel_order if backend else None),
        backend=backend,
        network=own,
        topology=topology,
        input_shape=shape,
        label_shape=label_shape,
    )


def image_shape(topology: Topology) -> InputShape:
    """Its images' shape (C, H, W)."""
    channels, height, width = topology.input_shape
    return channels, height, width


def makes_colours(topology: Topology, label_shape: Shape | None, losses: Iterable[str | None]) -> bool:
    """Whether a network makes images of three colours, and not the scores of three classes.

    By the labels' shape where it is known, else by the network's end and the ``losses`` that files have in words. Raises
    SettingsError where neither tells.
    """
    made = topology.shapes[topology.outputs[0]]
    if len(made) != 3 or made[0] != 3:
        return False
    if label_shape is not None:
        return label_shape[0] == 3
    maker = next((layer for layer in topology.layers if topology.outputs[0] in layer.outputs), None)
    said = [replace(topology, loss=loss) for loss in losses if loss]
    if (maker and maker.type in ("Softmax", "LogSoftmax")) or any(map(source.of_classes, said)):
        return False
    if any("difference" in (each.loss or "") for each in said):  # a word of the backends' readers
        return True
    raise SettingsError(
        f"{topology.source}: whether the three channels that it makes are colours or scores of classes cannot be told; give "
        'label_shape=(channels, height, width), or channels="keep"'
    )
