"""Names of the files and folders in a dataset folder."""

from __future__ import annotations

FILE = "dataset.json"  # multiseg's description
TRAIN, VAL = "train_db", "val_db"  # a folder for each split, of which the second may be missing
FEATURES, LABELS = "features", "labels"  # databases in these folders
MEAN_FILE = "mean.binaryproto"  # the mean image, beside the databases of the images that it is of
SPLITS = {"train": TRAIN, "val": VAL}
DATABASES = tuple(f"{split}/{kind}" for split in (TRAIN, VAL) for kind in (FEATURES, LABELS))
MEAN = f"{TRAIN}/{MEAN_FILE}"
