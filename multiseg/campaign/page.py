"""The page of a campaign: its outcomes by backend, the types of layers, and each alarm with its reduced part."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files

from multiseg._version import __version__
from multiseg.campaign.outcome import VERDICTS
from multiseg.campaign.result import Campaign
from multiseg.pages import templates
from multiseg.topology.vocabulary import VOCABULARY


def render(campaign: Campaign) -> str:
    """Return the page's HTML."""
    rows = campaign.outcomes.rows
    compared = [row for row in rows if row.comparisons]
    types = Counter((kind, row.backend) for row in compared for kind in set(row.types))
    return (
        templates.environment("multiseg.campaign")
        .get_template("campaign.html.j2")
        .render(
            campaign=campaign,
            seed=campaign.outcomes.seed,
            checked=len({row.number for row in rows}),
            comparisons=sum(row.comparisons for row in rows),
            verdicts=[(verdict, [campaign.count(name, verdict) for name in campaign.backends]) for verdict in VERDICTS],
            types=[(kind, [types[kind, name] for name in campaign.backends]) for kind in VOCABULARY],
            alarms=campaign.outcomes.alarms,
            css=files("multiseg.pages").joinpath("page.css").read_text(),
            version=__version__,
        )
    )
