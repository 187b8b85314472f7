"""The HTML page of a parity check."""

from __future__ import annotations

import math
from importlib.resources import files

from multiseg._version import __version__
from multiseg.pages import templates
from multiseg.pages.pictures import photo
from multiseg.parity.detail import SHARES
from multiseg.parity.findings import Findings
from multiseg.parity.graph import graph
from multiseg.parity.rows import TITLES, figures, percent, rows_by_stage
from multiseg.topology import graph_page

WORDS = {
    "network": "Whether the files hold the same network, by their neutral descriptions.",
    "weights": "Each network's own weights beside those of the first. Copies are exact, so the tolerance is 0.",
    "forward": "Each layer's output beside the float64 result from the same inputs that the layer had.",
    "stored": "What each layer outputs, the loss and the gradients, beside the values and tolerances that the file has.",
    "output": "The network's output beside float64's from the image on.",
    "loss": "The loss of a batch.",
    "gradient": "Of the loss, for each parameter; beside float64's, from the layers' outputs as the framework has them.",
    "step": "Each step is judged from the weights that the framework had before it. Of all steps the one nearest to its limit.",
    "dropout": "What each dropout multiplies by, as the framework draws it; gradients and steps beside float64's with the same.",
}


def render(parity: Findings) -> str:
    """Return the page's HTML."""
    environment = templates.environment("multiseg.parity")
    environment.filters["short"] = lambda number: "0" if not number else f"{number:.1e}" if number < 1e300 else "–"
    environment.filters["finite"] = math.isfinite
    environment.filters["percent"] = percent
    environment.filters["figures"] = figures
    steps = max((len(each) for each in parity.apart.values()), default=0)
    return environment.get_template("parity.html.j2").render(
        parity=parity,
        stages=[(stage, TITLES[stage], WORDS[stage], names) for stage, names in rows_by_stage(parity.rows).items()],
        apart=[
            (step, {side: values[step] for side, values in parity.apart.items() if step < len(values)})
            for step in range(steps)
        ],
        graph=graph(parity),
        worst_images=[(side, image, photo(image.pixels, 192)) for side, image in parity.worst_images.items()],
        bars=len(SHARES) + 1,
        within_bars=SHARES.index(1.0) + 1,
        graph_style=graph_page.style(),
        script=graph_page.script(),
        policy=graph_page.policy(graph_page.script()),
        css=files("multiseg.pages").joinpath("page.css").read_text(),
        version=__version__,
    )
