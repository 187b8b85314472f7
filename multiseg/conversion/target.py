"""The target of a conversion: a network file, or the file that the source's network is exported to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multiseg.backend import Backend, ChannelOrder
from multiseg.conversion.frameworks import Frameworks
from multiseg.conversion.parameters import ParameterSet
from multiseg.conversion.source import Source
from multiseg.dataset.labels import read_as_classes
from multiseg.errors import SettingsError, setting
from multiseg.exporting import source as exporter
from multiseg.files import write_text
from multiseg.model_files import kinds
from multiseg.topology import Topology


@dataclass(frozen=True)
class Target:
    """The network that the weights are written for.

    ``order`` is the channel order of its images; its file and topology are None if unknown. ``text`` is the content of the file
    if the conversion writes it.
    """

    order: ChannelOrder | None
    network: Path | None = None
    topology: Topology | None = None
    text: str | None = None

    @property
    def title(self) -> str:
        """The network's name in messages."""
        return self.topology.source if self.topology is not None else "the network"

    @property
    def parameters(self) -> ParameterSet | None:
        """The parameters for matching, None if the network is unknown."""
        if self.topology is None:
            return None
        return ParameterSet(self.title, self.topology.weights, self.topology, exported=self.text is not None)


def of_network(source: Source, backend: Backend | None, network: Path, frameworks: Frameworks) -> Target:
    """Return the target for a network file. Raises SettingsError if it belongs to another framework than the weights."""
    owner, kind = kinds.kind_of(network, "network")
    if backend is not None and owner != backend:
        raise SettingsError(
            f"{setting('network', str(network))}: is a {kind.name}; {setting('to', backend.weights_format)} "
            f"needs a network file of {backend.title}"
        )
    return Target(owner.channel_order, network, frameworks.describe(network, source.input_shape))


def derived(source: Source, backend: Backend | None, name: Path, wanted: bool, frameworks: Frameworks) -> Target:
    """Return the target without a network file: the source's network itself, or exported to ``backend``.

    ``wanted``: an exported file is required. Raises SettingsError if it is and the source's network is unknown.
    """
    if backend is None:
        return Target(source.order)
    if wanted and source.topology is None:
        raise SettingsError(
            f"{source.title}: {setting('with_network')} needs the source's network; "
            f"specify its file with {setting('source_network', example='FILE')}"
        )
    if source.backend == backend and not wanted:
        return Target(backend.channel_order, source.network, source.topology)
    if source.topology is None or backend.exporter is None:
        return Target(backend.channel_order)
    text = exporter.source(
        backend, source.topology, read_as_classes(source.topology, source.label_shape, source.labels)
    )
    file = name.with_suffix(backend.formats[0])
    write_text(file, text)
    return Target(backend.channel_order, file, frameworks.describe(file, source.input_shape), text)
