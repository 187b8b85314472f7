"""Compare two files of benchmarks/performance.py --json: exit 1 and name every figure that became worse.

python benchmarks/regression.py OLD.json NEW.json [--tolerance 0.15]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.15, help="share by which a figure may be worse")
    options = parser.parse_args()
    old, new = read(options.old), read(options.new)
    both = [key for key in old if key in new]
    worse = [key for key in both if loss(old[key], new[key]) > options.tolerance]
    for part, name in worse:
        before, after = old[part, name], new[part, name]
        share = f"{100 * loss(before, after):.0f} % worse"
        print(f"{part}: {name}: {before['value']:.3g}{before['unit']} -> {after['value']:.3g}{after['unit']}, {share}")
    for part, name in sorted(old.keys() - new.keys()):
        print(f"{part}: {name}: only in {options.old}, not compared")
    print(f"{len(worse)} of {len(both)} figures became worse by more than {100 * options.tolerance:g} %")
    sys.exit(1 if worse else 0 if both else 2)


def read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the figures by part and name."""
    return {(figure["part"], figure["name"]): figure for figure in json.loads(path.read_text())["figures"]}


def loss(old: dict[str, Any], new: dict[str, Any]) -> float:
    """Return the relative deterioration; negative for an improvement."""
    before, after = old["value"], new["value"]
    return before / after - 1 if old["better"] == "higher" else after / before - 1


if __name__ == "__main__":
    main()
