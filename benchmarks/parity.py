"""Measure how far the frameworks are from float64, for each network: the figures of docs/parity.md.

python benchmarks/parity.py [NET...]

Networks: the tutorial's FCN on 200 triangles, each framework's own file, 20 steps; and the networks of tests/nets on random
images, the prototxt exported to each framework, 5 steps.
"""

import sys
import tempfile
import time
from pathlib import Path

import multiseg
from multiseg.parity.rows import percent

TESTS = Path(__file__).parents[1] / "tests"
BACKENDS = ["caffe", "torch", "tensorflow"]


def main() -> None:
    sys.path[:0] = [str(TESTS / "contract"), str(TESTS)]
    import zoo

    print(
        "| network | layers | output | loss | gradients | resolution of gradients | a step's weights | comparisons | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for net in sys.argv[1:] or ["fcn", *zoo.SHAPES]:
            folder = Path(scratch) / net
            if net == "fcn":
                images = multiseg.create_images(folder / "images", count=200, seed=1)
                data = multiseg.Dataset.create(
                    folder / "dataset", input=images / "input", target=images / "target", seed=1
                )
                options = {"steps": 20}
            else:
                data = zoo.dataset(net, folder)
                options = {"models": zoo.NETS / f"{net}.prototxt", "steps": 5, "batch_size": 4}
                options |= {"learning_rate": 1e-7, "subtract_mean": "none"}
            began = time.perf_counter()
            found = multiseg.check_parity(data, BACKENDS, **options)
            cells = []
            for stage in ("forward", "output", "loss", "gradient", "step"):
                rows = [row for row in found.rows if row.stage == stage]
                largest, share = max(row.relative for row in rows), max(row.share for row in rows)
                cells.append(f"{largest:.1e} ({percent(share)})")
                if stage == "gradient":
                    finest, coarsest = (f([row.resolution for row in rows]) for f in (min, max))
                    cells.append(f"{finest:.1e} to {coarsest:.1e}")
            seconds = time.perf_counter() - began
            print(f"| {net} | {' | '.join(cells)} | {len(found.rows)} | {seconds:.0f} |", flush=True)
            if not found.ok:
                print(found)


if __name__ == "__main__":
    main()
