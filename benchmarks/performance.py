"""Measure all performance figures, each a ratio of medians of alternating runs; docs/performance.md explains them.

python benchmarks/performance.py                        # about 45 minutes on two cores
python benchmarks/performance.py --quick                # a few minutes, less accurate
python benchmarks/performance.py --only step,floor --backend torch --json new.json
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parts.figures import HEADER, Figure
from parts.setup import Bench

import multiseg

PARTS = ("step", "networks", "floor", "job", "choice", "inference", "scaling", "startup")
PACKAGES = ("multiseg", "numpy", "torch", "tensorflow_cpu", "keras", "pycaffe", "pillow", "lmdb")


def main() -> None:
    """Print a table for each part, and write all figures to the file of --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    available = [found.name for found in multiseg.backends() if found.available]
    parser.add_argument("--backend", action="append", dest="backends", choices=available, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer images")
    parser.add_argument("--threads", type=int, default=1, help="of the part networks: above 1, by wall time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    parts = options.only.split(",")
    unknown = set(parts).difference(PARTS)
    if unknown:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    found = setting() | {"quick": options.quick}
    print(", ".join(f"{key} {value}" for key, value in (found["machine"] | found["versions"]).items()))
    print(f"threads {found['threads']}, {found['date']}, commit {found['commit']}")
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), tuple(options.backends or available), options.quick, options.threads)
        for part in parts:
            for figure in measured(part, bench):
                figures.append({"part": part, **asdict(figure)})
                if options.json:  # after each part, so that an interruption loses nothing
                    options.json.write_text(json.dumps({**found, "figures": figures}, indent=1))


def measured(part: str, bench: Bench) -> Iterator[Figure]:
    """Return the figures of a part, printing each when it is measured."""
    print(f"\n## {part}\n\n{HEADER}", flush=True)
    for figure in importlib.import_module(f"parts.{part}").figures(bench):
        print(figure, flush=True)
        yield figure


def setting() -> dict[str, Any]:
    """Return the machine, versions and commit of the measurement."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    cores = len(os.sched_getaffinity(0))
    return {
        "machine": {
            "processor": next((line.partition(": ")[2] for line in info if line.startswith("model name")), "unknown"),
            "cores": cores,
            "load before": round(
                os.getloadavg()[0], 1
            ),  # above 0.5 other processes run: figures, especially floors, are unreliable
            "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        },
        "versions": versions,
        "threads": cores,
        "date": datetime.datetime.now().isoformat(timespec="minutes"),
        "commit": subprocess.run(commit, capture_output=True, text=True).stdout.strip(),
    }


if __name__ == "__main__":
    main()
