"""Tables of the values in the JSON files of a run folder, against which they are checked when they are read.

Keys that later versions have are not checked; those that earlier versions did not write are optional.
"""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import Any

from multiseg.run.names import MODEL
from multiseg.schema import (
    FLAG,
    NUMBER,
    OBJECT,
    POSITIVE,
    SHAPE,
    TEXT,
    WHOLE,
    Kind,
    Schema,
    list_of,
    mapping_of,
    optional,
    or_none,
)

LONGEST_NAME, LONGEST_PATH = 255, 4096  # bytes of a file's name and of a path, in usual file systems


def _is_file_name(value: Any) -> bool:
    return (
        TEXT.valid(value)
        and PurePath(value).name == value != ".."
        and len(value.encode(errors="surrogatepass")) <= LONGEST_NAME
    )


def _shape_of(value: Any, axes: int = 3) -> tuple[int, ...] | None:
    """Return the shape of nested lists of numbers, () for a number; None for anything else, or more than ``axes`` axes."""
    if not isinstance(value, list):
        return () if NUMBER.valid(value) else None
    if set(map(type, value)) == {float} and axes:  # a mean image has very many
        return (len(value),) if all(map(math.isfinite, value)) else None
    shapes = {_shape_of(item, axes - 1) for item in value} if axes else {None}
    shape = shapes.pop() if len(shapes) == 1 else None
    return None if shape is None else (len(value), *shape)


def _is_path(value: Any) -> bool:
    if not TEXT.valid(value):
        return False
    path: bytes = value.encode(errors="surrogateescape")
    return len(path) < LONGEST_PATH and all(len(part) <= LONGEST_NAME for part in path.split(b"/"))


PATH = Kind("a path", _is_path)
FILE_NAME = Kind(f"the name of a file in {MODEL}/ of the run", _is_file_name)
SIZE = list_of(POSITIVE, "two positive whole numbers", 2)
NUMBERS = list_of(NUMBER, "a list of numbers")
ARRAY = Kind("an array of numbers", lambda value: isinstance(value, list) and _shape_of(value) is not None)
OPTIONS = mapping_of(NUMBER, "an object of numbers")
WHOLES = list_of(WHOLE, "a list of whole numbers")

JOB_VALUES: Schema = {
    "settings": OBJECT,
    "settings.backend": TEXT,
    "settings.model": FILE_NAME,
    "settings.exported": optional(or_none(FILE_NAME)),
    "settings.epochs": POSITIVE,
    "settings.batch_size": POSITIVE,
    "settings.val_batch_size": POSITIVE,
    "settings.accumulate": POSITIVE,
    "settings.seed": WHOLE,
    "settings.threads": WHOLE,
    "settings.data_workers": optional(or_none(WHOLE)),
    "settings.image_cache": optional(or_none(WHOLE)),
    "settings.device": TEXT,
    "settings.lowering": FLAG,
    "settings.compile": optional(FLAG),
    "settings.precision": optional(TEXT),
    "settings.recipe": TEXT,
    "settings.learning_rate": NUMBER,
    "settings.solver": OBJECT,
    "settings.multipliers": mapping_of(OPTIONS, "an object of multipliers"),
    "settings.loss": TEXT,
    "settings.loss_options": optional(OPTIONS),
    "settings.class_weights": optional(NUMBERS),
    "settings.ignore_index": optional(or_none(WHOLE)),
    "settings.freeze": list_of(TEXT, "a list of texts"),
    "settings.subtract_mean": TEXT,
    "settings.threshold": optional(NUMBER),
    "settings.val_interval": optional(NUMBER),
    "settings.crop": optional(or_none(SIZE)),
    "settings.val_crop": optional(or_none(SIZE)),
    "model_path": optional(or_none(PATH)),
    "dataset": OBJECT,
    "dataset.path": PATH,
    "dataset.content_hash": TEXT,
    "dataset.values": optional(TEXT),
    "dataset.exif": optional(TEXT),
    "mean": optional(or_none(ARRAY)),
    "std": optional(or_none(ARRAY)),
    "input_shape": SHAPE,
    "label_shape": SHAPE,
    "image_shape": optional(SHAPE),
    "mixed_sizes": optional(FLAG),
    "labels": optional(or_none(OBJECT)),
    "network": OBJECT,
    "network.parameters": mapping_of(WHOLES, "an object of shapes"),
    "network.own_loss": FLAG,
    "network.ignored": optional(or_none(WHOLES)),
    "network.classes": optional(or_none(WHOLE)),
    "network.label_range": optional(list_of(NUMBER, "two numbers", 2)),
    "model_files": optional(mapping_of(TEXT, "an object of texts")),
    "environment": OBJECT,
    "weights": optional(or_none(OBJECT)),
}
SUMMARY_VALUES: Schema = {
    "status": optional(TEXT),
    "error": optional(Kind("a text", lambda value: isinstance(value, str))),  # perhaps with any characters
    "epochs": optional(NUMBER),
    "best_epoch": optional(or_none(NUMBER)),
    "train_seconds": optional(or_none(NUMBER)),
    "peak_memory_mb": optional(or_none(NUMBER)),
    "stopped_early": optional(FLAG),
}
POSITION_VALUES: Schema = {
    "iteration": WHOLE,
    "epoch": NUMBER,
    "rows": WHOLE,
    "loss_sum": NUMBER,
    "images": WHOLE,
    "seconds": NUMBER,
    "rate": optional(or_none(NUMBER)),
}
SUMS_VALUES: Schema = {
    "files": mapping_of(TEXT, "an object of texts"),
    "history": TEXT,
    "rows": WHOLE,
    "settings": TEXT,
    "sums": TEXT,
}
_COUNT = Kind("a whole number from 0", lambda value: WHOLE.valid(value) and value >= 0)
PROGRESS_VALUES: Schema = {  # of a training; see multiseg.training.live
    "host": optional(TEXT),
    "pid": optional(Kind("the number of a process", lambda value: WHOLE.valid(value) and 0 < value < 2**31)),
    "time": optional(NUMBER),
    "iteration": _COUNT,
    "iterations": _COUNT,
    "epoch": NUMBER,
    "epochs": POSITIVE,
    "batch_size": POSITIVE,
    "ended": optional(FLAG),
}
