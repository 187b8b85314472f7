"""The source of a conversion: the weights of a run or a file, with what is known about their network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multiseg import backend as registry
from multiseg.backend import Backend, ChannelOrder
from multiseg.conversion import channels
from multiseg.conversion.frameworks import Frameworks, InputShape
from multiseg.conversion.parameters import ParameterSet, listed
from multiseg.dataset.labels import Labels, are_colours
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.model_files import choosing, kinds
from multiseg.model_files.weights_file import Array, NeutralWeights
from multiseg.network import CLASSES, IMAGES, LabelKind
from multiseg.run.run import Run
from multiseg.run.state import neutral_of
from multiseg.topology import Shape, Topology
from multiseg.topology.cutting import cut
from multiseg.topology.vocabulary import types
from multiseg.worker import choice

SOFTMAX = types(lambda row: row.category == "softmax")


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
    labels: LabelKind = IMAGES

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
                    actual = f"with the shape {shapes[name]}" if name in shapes else f"missing from {listed(shapes)}"
                    raise ModelError(
                        f"{self.title}: does not belong to the network in {self.topology.source}, which has {name!r} {shape}; "
                        f"here it is {actual}"
                    )
        return ParameterSet(self.title, shapes, self.topology)


def of_run(run: Run, state: bool, described: bool, outputs: Sequence[str] = ()) -> Source:
    """Return a run's snapshot as the source, with the solver's ``state`` and the network's topology on request.

    ``outputs``: the names of the outputs that the network is cut to.
    """
    backend = registry.get(run.backend)
    content = neutral_of(run) if state else NeutralWeights(run.worker().call("get_weights"), backend.channel_order)
    network = choosing.with_outputs(run.model, outputs) if outputs else run.model
    topology = cut(run.topology, outputs) if described or outputs else None
    return Source(
        title=str(run.path),
        content=_needed(content, topology, network),
        order=backend.channel_order,
        backend=backend,
        network=network,
        topology=topology,
        input_shape=run.input_shape,
        label_shape=run.label_shape,
        labels=(run.labels or Labels()).kind,
    )


def of_file(
    file: Path, network: Path | None, input_shape: InputShape | None, label_shape: Shape | None, frameworks: Frameworks,
    outputs: Sequence[str] = (),
) -> Source:  # fmt: skip
    """Return a weights file as the source; without ``network`` a network in the file itself is used, cut to ``outputs``.

    Raises SettingsError for outputs without a network.
    """
    own, topology = network, None
    if network is not None:
        topology = frameworks.describe(network, input_shape)
    elif kinds.is_network(file):
        try:
            own = choosing.with_outputs(file, outputs) if outputs else file
            topology = frameworks.describe(own, input_shape)
        except ModelError:
            if input_shape is not None or outputs:
                raise
            own = None  # the shape of its images is unknown, so that only its weights can be used
    elif outputs:
        raise SettingsError(
            f"{setting('outputs', list(outputs))}: needs the network of {file.name}; specify its file with "
            f"{setting('source_network', example='FILE')}"
        )
    backend = None if own is None else kinds.kind_of(own, "network")[0]
    shape = input_shape if topology is None else image_shape(topology)
    content = frameworks.read(file, own, shape)
    if topology is not None:
        content = content.without_prefix(topology.weights)
    content = _needed(content, topology, own)
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


def _needed(content: NeutralWeights, topology: Topology | None, network: Path | None) -> NeutralWeights:
    """Return the weights of the layers of a network that is cut to some of its outputs; all of one that is not."""
    if topology is None or network is None or not choice.read(network).outputs:
        return content
    kept = {name: value for name, value in content.weights.items() if name in topology.weights}
    return NeutralWeights(kept, content.channel_order)


def image_shape(topology: Topology) -> InputShape:
    """Return the shape of the network's images (C, H, W)."""
    channels, height, width = topology.input_shape
    return channels, height, width


def makes_colours(topology: Topology, label_shape: Shape | None, described: Iterable[Topology]) -> bool:
    """Return whether a network makes images of three colours, and not the scores of three classes.

    The shape of its labels decides where it is known, else the network's last layer and the kind of labels that its files' own
    losses take (``described``). Raises SettingsError where neither is known.
    """
    shapes = topology.shapes
    images = {value for value in topology.outputs if len(shapes[value]) == 3 and shapes[value][0] == 3}
    if not images:
        return False
    if label_shape is not None:
        return are_colours(label_shape)
    last = [layer.type for layer in topology.layers if images.intersection(layer.outputs)]
    kinds = [network.loss_labels for network in described]
    if (last and all(type in SOFTMAX for type in last)) or CLASSES in kinds:
        return False
    if IMAGES in kinds:
        return True
    raise SettingsError(
        f"{topology.source}: cannot tell whether the three channels of its output are colours or scores of classes; specify "
        f"{setting('label_shape', example='(channels, height, width)')}, or {channels.KEEP}"
    )
