"""Medical segmentation in every installed backend: 16-bit images of which about 2 % are foreground, trained with Dice loss.

    python examples/medical.py OUT

A network that finds nothing there is right for about 98 % of the pixels. Dice loss is one minus the
overlap of the predicted and the true foreground. The images are synthetic: cells among vessels of the same brightness. To train
on images of your own (PNG or TIFF of 16 bits, NumPy arrays), create the dataset from your folders.
"""

import argparse
from pathlib import Path

import multiseg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="new folder for images, dataset, runs and page")
    parser.add_argument("--count", type=int, default=600, help="pairs of images")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--backend", action="append", help="only this backend; may be repeated")
    parser.add_argument("--loss", default="dice", help="dice, or cross_entropy to see the difference")
    arguments = parser.parse_args()
    out = arguments.out

    images = multiseg.create_images(out / "images", scene="cells", count=arguments.count, seed=1)
    dataset = multiseg.Dataset.create(
        out / "dataset",
        input=images / "input",
        target=images / "target",
        labels="classes",
        classes=images / "classes.txt",
        seed=1,
    )
    counts = dataset.label_counts("train") or {}
    print(f"{dataset}, values of type {dataset.values}, {counts[1] / sum(counts.values()):.1%} foreground")

    runs = []
    for backend in multiseg.backends():
        if arguments.backend and backend.name not in arguments.backend:
            continue
        if not backend.available:
            print(backend.problem)
            continue
        job = multiseg.Job(
            dataset=dataset,
            backend=backend.name,
            model="unet",
            epochs=arguments.epochs,
            batch_size=8,
            divide_std="dataset",  # values of 16 bits are far larger than a network's weights expect
            recipe="equal",  # the same initialisation, batch order and solver rule in all backends
            solver="adam",
            learning_rate=3e-3,
            lr_policy="linear",
            loss=arguments.loss,
            metric="dice",
            seed=1,
        )
        run = job.train(out / backend.name)
        result = run.test_db(dataset.path / "val_db" / "features")
        print(f"{backend.name}: pixel accuracy {result['pixel_accuracy']:.3f}")
        for row in result["per_class"]:
            print(f"  {row}")
        output = run.test_one(images / "input" / "00000000.png")
        output.overlay(opacity=0.5).save(out / f"{backend.name}-overlay.png")
        runs.append(run)

    comparison = multiseg.compare(runs, grid=images / "grid.png")
    print(comparison.to_markdown())
    print(comparison.to_html(out / "report.html"))


if __name__ == "__main__":
    main()
