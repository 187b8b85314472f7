"""What weights become: those of a network file that is given, or of one that the source's network is exported to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multiseg.backend import Backend, ChannelOrder
from multiseg.conversion.frameworks import Frameworks
from multiseg.conversion.mapping import Side
from multiseg.conversion.source import Source
from multiseg.errors import SettingsError
from multiseg.exporting import source
from multiseg.files import write_text
from multiseg.model_files import kinds
from multiseg.topology import Topology


@dataclass(frozen=True)
class Target:
    """A network that is fed colours in this order, in a file and described where they are known.

    ``text`` is the content of that file where it is written for this.
    """

    order: ChannelOrder | None
    network: Path | None = None
    topology: Topology | None = None
    text: str | None = None

    @property
    def side(self) -> Side | None:
        """As it is mapped."""
        if self.topology is None:
            return None
        return Side(self.topology.source, self.topology.weights, self.topology, exported=self.text is not None)


def given(found: Source, backend: Backend | None, network: Path, frameworks: Frameworks) -> Target:
    """The target of a network file."""
    owner, kind = kinds.kind_of(network, "network")
    if backend is not None and owner != backend:
        raise SettingsError(
            f"network={str(network)!r}: is a {kind.name}; to={backend.weights_format!r} is for {backend.title}'s"
        )
    return Target(owner.channel_order, network, frameworks.describe(network, found.input_shape))


def derived(found: Source, backend: Backend | None, name: Path, wanted: bool, frameworks: Frameworks) -> Target:
    """The target where no network file is given: the source's own, or what it is exported to; ``wanted``: as a file."""
    if backend is None:
        return Target(found.order)
    if wanted and found.topology is None:
        raise SettingsError(
            f"{found.title}: with_network needs to know the network; name its file, source_network=FILE"
        )
    if found.backend == backend and not wanted:
        return Target(backend.channel_order, found.network, found.topology)
    if found.topology is None or backend.exporter is None:
        return Target(backend.channel_order)
    text = source.source(backend, found.topology, source.of_classes(found.topology, found.label_shape))
    file = name.with_suffix(backend.formats[0])
    write_text(file, text)
    return Target(backend.channel_order, file, frameworks.describe(file, found.input_shape), text)
