"""Run DIGITS' binary-segmentation tutorial in one backend, with that framework's own defaults.

    python examples/tutorial.py caffe --epochs 150

Without options: PyTorch, 10 epochs, which is enough to see the loss fall. The tutorial itself uses 150.
"""

import argparse

import multiseg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend", nargs="?", default="torch")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--count", type=int, default=10_000)
    arguments = parser.parse_args()

    multiseg.create_images("tutorial/images", count=arguments.count)
    dataset = multiseg.Dataset.create(
        "tutorial/dataset", input="tutorial/images/input", target="tutorial/images/target"
    )
    job = multiseg.Job(dataset=dataset, backend=arguments.backend, epochs=arguments.epochs, subtract_mean="pixel")
    with job.train(f"tutorial/{arguments.backend}") as run:
        print(run.test_db(dataset.path / "val_db/features"))
        run.test_one("tutorial/images/grid.png", resize=False).image.save("tutorial/grid.png")


if __name__ == "__main__":
    main()
