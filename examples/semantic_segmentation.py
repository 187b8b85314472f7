"""Semantic segmentation in every installed backend: a U-Net finds seven classes, and one page compares the runs.

    python examples/semantic_segmentation.py OUT

The images are synthetic, because no data is shipped with multiseg: shapes of six classes on textured backgrounds, with borders
that are ignored. To train on images of your own, create the dataset from your folders, or with voc=FOLDER from PASCAL VOC.
"""

import argparse
from pathlib import Path

import multiseg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="new folder for images, dataset, runs and page")
    parser.add_argument("--count", type=int, default=1000, help="pairs of images")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--backend", action="append", help="only this backend; may be repeated")
    arguments = parser.parse_args()
    out = arguments.out

    images = multiseg.create_images(out / "images", scene="shapes", count=arguments.count, seed=1)
    dataset = multiseg.Dataset.create(
        out / "dataset",
        input=images / "input",
        target=images / "target",
        labels="classes",
        classes=images / "classes.txt",
        ignore=255,
        seed=1,
    )
    print(dataset, ", ".join(dataset.labels.names))

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
            batch_size=4,
            recipe="equal",  # the same initialisation, batch order and solver rule in all backends
            solver="adam",
            learning_rate=1e-2,
            lr_policy="linear",
            loss="cross_entropy",
            metric="miou",
            seed=1,
        )
        run = job.train(out / backend.name)
        result = run.test_db(dataset.path / "val_db" / "features")
        print(f"{backend.name}: mean IoU {result['miou']:.3f} after {run.summary['train_seconds']:.0f} s")
        for row in result["per_class"]:
            print(f"  {row}")
        output = run.test_one(images / "input" / "00000000.png")
        output.image.save(out / f"{backend.name}-classes.png")
        output.overlay(opacity=0.5).save(out / f"{backend.name}-overlay.png")
        runs.append(run)

    comparison = multiseg.compare(runs, grid=images / "grid.png")
    print(comparison.to_markdown())
    print(comparison.to_html(out / "report.html"))


if __name__ == "__main__":
    main()
