"""Train the same job in every installed backend, and write one page that compares the runs.

python examples/compare_backends.py DATASET OUT --epochs 6
"""

import argparse
from pathlib import Path

import multiseg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()

    runs = []
    for backend in multiseg.backends():
        if not backend.available:
            print(backend.problem)
            continue
        job = multiseg.Job(
            dataset=arguments.dataset,
            backend=backend.name,
            epochs=arguments.epochs,
            batch_size=32,
            solver="adam",
            learning_rate=2e-3,
            lr_policy="linear",
            loss="l2",
            seed=1,
        )
        runs.append(job.train(arguments.out / backend.name))
    comparison = multiseg.compare(runs)
    print(comparison.to_markdown())
    print(comparison.to_html(arguments.out / "report.html"))


if __name__ == "__main__":
    main()
