"""While a dataset is created, images reuse the memory of earlier ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import multiseg

PAIRS, SIDE = 60, 512
# prints the page faults of the creation of a dataset in this process
PROGRAM = """
import resource, sys, multiseg
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
multiseg.Dataset.create(sys.argv[1] + "/out", input=sys.argv[1] + "/input", target=sys.argv[1] + "/target", workers=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_images_cost_few_page_faults(tmp_path: Path) -> None:
    """An image or label of 256 kB has 64 pages, and is copied; the program itself has some thousand pages."""
    counts = []
    for name, count in (("few", PAIRS), ("many", 5 * PAIRS)):
        multiseg.create_images(tmp_path / name, count, SIDE, seed=0)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / name)], check=True, capture_output=True, text=True
        )
        counts.append(int(done.stdout))
    assert (counts[1] - counts[0]) / (4 * PAIRS) < 16, counts
