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

    distinct: list[TrainedNetwork] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)


def networks(facts: Sequence[RunFacts]) -> Networks:
    """Return the networks of the runs; starts the backend's process for files that only the framework can read."""
    result = Networks()
    for run_facts in facts:
        try:
            topology = replace(run_facts.run.topology, source=run_facts.label)
        except MultisegError as error:
            result.unknown[run_facts.label] = str(error)
            continue
        known = next((network for network in result.distinct if network.topology == topology), None)
        if known:
            known.runs.append(run_facts)
        else:
            first = result.distinct[0].topology if result.distinct else topology
            result.distinct.append(
                TrainedNetwork(topology, [run_facts], picture(topology).to_svg(), first.diff(topology))
            )
    return result
