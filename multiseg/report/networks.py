"""Which networks the runs trained, and where these differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from multiseg.errors import MultisegError
from multiseg.report.facts import RunFacts
from multiseg.topology import Difference, Topology
from multiseg.topology.drawing import picture


@dataclass
class Network:
    """One network, the runs that trained it, its drawing, and how it differs from the first one, which differs in nothing."""

    topology: Topology
    runs: list[RunFacts]
    svg: str
    difference: Difference


@dataclass
class Networks:
    """All networks, each once, and for the runs whose network cannot be told the reason."""

    found: list[Network] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)


def networks(facts: Sequence[RunFacts]) -> Networks:
    """The runs' networks. Files that only their framework can read are read by the runs' processes, which it starts."""
    result = Networks()
    for each in facts:
        try:
            topology = replace(each.run.topology, source=each.label)
        except MultisegError as error:
            result.unknown[each.label] = str(error)
            continue
        known = next((one for one in result.found if one.topology == topology), None)
        if known:
            known.runs.append(each)
        else:
            first = result.found[0].topology if result.found else topology
            result.found.append(Network(topology, [each], picture(topology).to_svg(), first.diff(topology)))
    return result
