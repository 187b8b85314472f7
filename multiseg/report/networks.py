"""The distinct networks of the runs, and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from multiseg.errors import MultisegError
from multiseg.report.facts import RunFacts
from multiseg.topology import Difference, Topology
from multiseg.topology.drawing import picture


@dataclass
class TrainedNetwork:
    """A network, the runs that trained it, its drawing, and its difference from the first network."""

    topology: Topology
    runs: list[RunFacts]
    svg: str
    difference: Difference


@dataclass
class Networks:
    """The distinct networks, and the error message for each run whose network cannot be described."""

    found: list[TrainedNetwork] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)


def networks(facts: Sequence[RunFacts]) -> Networks:
    """Return the networks of the runs; starts the backend's process for files that only the framework can read."""
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
            result.found.append(TrainedNetwork(topology, [each], picture(topology).to_svg(), first.diff(topology)))
    return result
