"""Create a dataset from folders of images, like DIGITS' "Images > Processing"."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.description import combined_hash, write_description
from multiseg.dataset.encoders import Encoders
from multiseg.dataset.encoding import (
    MOST_PAIRS,
    Chunk,
    EncodingTask,
    pair_bytes,
    read_label,
    shape_of,
    without_colour,
)
from multiseg.dataset.encodings import LabelEncoding, RecordEncoding
from multiseg.dataset.finishing import Finishing
from multiseg.dataset.label_options import LabelOptions, warnings_about
from multiseg.dataset.label_rules import LabelRules
from multiseg.dataset.label_statistics import LabelStatistics
from multiseg.dataset.names import FEATURES, LABELS, MEAN_FILE, SPLITS
from multiseg.dataset.pairs import Pairs, find_pairs, refuse_overlap, split_folders, split_pairs
from multiseg.dataset.reading import mean_of_records
from multiseg.dataset.records import mean_blob
from multiseg.dataset.staging import staged_folder
from multiseg.dataset.voc import have_one_size, read_layout
from multiseg.dataset.writing import RecordWriter
from multiseg.errors import DatasetError, MultisegWarning, SettingsError, setting
from multiseg.images import MOST_PIXELS, Channels, Exif, Values, decode, read_bytes
from multiseg.schema import POSITIVE

Progress = Callable[[int, int], None]

_CHUNK_BYTES = 1 << 20
DEFAULTS = {
    "voc": None,
    "max_pixels": MOST_PIXELS,
    "input_ending": "",
    "target_ending": "",
}  # options that dataset.json does not have with these values
_MIN_CHUNKS_PER_WORKER = 16  # with fewer, a helper process costs more time than it saves


@dataclass(frozen=True)
class CreationOptions:
    """The options of a new dataset. Raises SettingsError for an invalid value.

    ``voc`` is a folder in PASCAL VOC's layout, of which ``input`` and ``target`` are the folders of images and masks.
    """

    input: str
    target: str
    val_input: str | None
    val_target: str | None
    val_percent: float
    channels: Channels
    feature_encoding: RecordEncoding
    label_encoding: LabelEncoding
    mixed_sizes: bool
    seed: int
    exif: Exif = "apply"
    voc: str | None = None
    max_pixels: int = MOST_PIXELS
    input_ending: str = ""
    target_ending: str = ""

    def __post_init__(self) -> None:
        for name in ("input", "target", "val_input", "val_target"):
            if getattr(self, name) == "":
                raise SettingsError(f"{setting(name, '')}: must be a folder of images; '.' is the current one")
        _one_of("channels", self.channels, get_args(Channels))
        _one_of("feature_encoding", self.feature_encoding, get_args(RecordEncoding))
        _one_of("label_encoding", self.label_encoding, get_args(LabelEncoding))
        _one_of("exif", self.exif, get_args(Exif))
        for name in ("input_ending", "target_ending"):
            if not isinstance(getattr(self, name), str):
                raise SettingsError(f"{setting(name, getattr(self, name))}: must be text, such as '_mask'")
            if getattr(self, name) and self.voc is not None:
                raise SettingsError(f"{setting(name)} and {setting('voc')}: exclude each other")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SettingsError(f"{setting('seed', self.seed)}: must be a whole number from 0")
        if not POSITIVE.valid(self.max_pixels):
            raise SettingsError(f"{setting('max_pixels', self.max_pixels)}: must be a whole number from 1 to 2**63-1")
        try:
            valid = 0 <= Fraction(self.val_percent) < 100
        except (TypeError, ValueError, OverflowError):
            valid = False
        if not valid:
            raise SettingsError(f"{setting('val_percent', self.val_percent)}: must be from 0 to below 100")
        if (self.val_input is None) != (self.val_target is None):
            raise SettingsError(
                f"{setting('val_input')} and {setting('val_target')} belong together; give both or neither"
            )
        if self.val_input is not None and self.val_target is not None:
            refuse_overlap(self.input, self.val_input)
            refuse_overlap(self.target, self.val_target)


def create(
    options: CreationOptions,
    label_options: LabelOptions,
    folder: str | os.PathLike[str],
    workers: int | None,
    progress: Progress | None,
) -> list[MultisegWarning]:
    """Create a dataset in a new folder, atomically: whatever ends it leaves the complete folder or none. Return warnings.

    Raises SettingsError, DatasetError or ImageError, see Dataset.create.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise SettingsError(f"{setting('workers', workers)}: must be a whole number from 1")
    with staged_folder(folder) as staging:
        rules = label_options.rules(options.channels)
        train, val, first_pairs = _pairs_of(options)
        if options.voc is not None and not options.mixed_sizes:
            options = replace(options, mixed_sizes=not have_one_size((train, val)))
        task = _task(options, rules, first_pairs)
        left_out = _left_out(options, first_pairs, val)
        split_warnings = _warnings_about_split(options, first_pairs)
        del first_pairs
        records = _write_records(staging, {"train": train, "val": val}, task, workers, progress)
        both = LabelStatistics()
        for one in records.statistics.values():
            both.merge(one)
        labels = label_options.labels(both, options.target)
        warnings = [*split_warnings, *warnings_about(labels, both, options.target)]
        shapes: dict[str, Any] = {
            "shape": None if options.mixed_sizes else list(task.shape),
            "label_shape": None if options.mixed_sizes else list(task.label_shape),
        }
        write_description(
            staging,
            {
                **{
                    name: value
                    for name, value in asdict(options).items()
                    if name not in DEFAULTS or value != DEFAULTS[name]
                },
                "labels": labels.to_json(),
                **label_options.to_json(),
                "label_values": {name: one.to_json() for name, one in records.statistics.items()},
                **({"warnings": list(map(str, warnings))} if warnings else {}),
                "values": "float32" if task.deep else "uint8",
                "applied": dict(records.applied),
                "left_out": left_out,
                "train": {"count": len(train), **shapes},
                "val": {"count": len(val), **shapes},
                "databases": records.hashes,
                "content_hash": combined_hash(records.hashes),
            },
            records.sums,
        )
    return warnings


def _task(options: CreationOptions, rules: LabelRules, pairs: Pairs) -> EncodingTask:
    """Return what all pairs are encoded with; shapes and kind of values are those of the first of ``pairs``."""
    first, (feature, label) = _first(pairs, options, rules)
    return EncodingTask(
        channels=options.channels,
        feature_encoding=options.feature_encoding,
        label_encoding=options.label_encoding,
        mixed_sizes=options.mixed_sizes,
        first=first,
        shape=shape_of(feature),
        label_shape=shape_of(label),
        rules=rules,
        exif=options.exif,
        deep=feature.dtype != np.uint8,
        max_pixels=options.max_pixels,
    )


def _left_out(options: CreationOptions, pairs: Pairs, val: Pairs) -> dict[str, dict[str, int]]:
    """Return the numbers of files that are not images, by folder and extension."""
    counts = {
        "input": pairs.other_inputs,
        "target": pairs.other_targets,
        "val_input": val.other_inputs if options.val_input is not None else {},
        "val_target": val.other_targets if options.val_target is not None else {},
    }
    return {name: dict(sorted(of_folder.items())) for name, of_folder in counts.items() if of_folder}


@dataclass
class _Records:
    """What is known of the databases that were written."""

    statistics: dict[str, LabelStatistics]  # of the labels of each split
    hashes: dict[str, str] = field(default_factory=dict)  # of the databases
    applied: Counter[str] = field(default_factory=Counter)
    sums: dict[str, str] = field(default_factory=dict)  # of the files


def _write_records(
    staging: Path, splits: Mapping[str, Pairs], task: EncodingTask, workers: int, progress: Progress | None
) -> _Records:
    """Encode the pairs of all splits in ``workers`` processes, fewer for few pairs, and write their databases."""
    size = max(1, min(MOST_PAIRS, _CHUNK_BYTES // pair_bytes(task)))
    total = sum(map(len, splits.values()))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    records = _Records({name: LabelStatistics() for name in splits})
    used = max(1, min(workers, total // size // _MIN_CHUNKS_PER_WORKER))
    with Finishing(concurrent=used > 1) as finishing:
        with Encoders(task, used) as encoders:
            for name, pairs in splits.items():
                if len(pairs):
                    records.hashes |= _write_split(
                        staging, SPLITS[name], pairs, encoders, size, advance, records.statistics[name], records.applied
                    )
                    finishing.add(staging / SPLITS[name])
        records.sums = finishing.sums(staging)
    return records


def _pairs_of(options: CreationOptions) -> tuple[Pairs, Pairs, Pairs]:
    """Return the pairs for training and for validation, and those whose first files all others are compared with."""
    if options.voc is not None:
        train, val = read_layout(options.voc)
        return train, val, train
    endings = options.input_ending, options.target_ending
    pairs = find_pairs(options.input, options.target, *endings)
    if options.val_input is not None and options.val_target is not None:
        return pairs, find_pairs(options.val_input, options.val_target, *endings), pairs
    return *split_pairs(pairs, options.val_percent, options.seed), pairs


def _warnings_about_split(options: CreationOptions, pairs: Pairs) -> list[MultisegWarning]:
    """Return a warning if folders state a split of the images, which are put together and split at random."""
    random_split = options.voc is None and options.val_input is None and options.val_percent
    folders = split_folders(pairs) if random_split else None
    if folders is None:
        return []
    train, val = (str(Path(options.input) / name) for name in folders)
    return [
        MultisegWarning(
            f"{options.input}: images of its folders {folders[0]} and {folders[1]} are put together and split at random; to keep "
            f"that split, specify {setting('input', train)} and {setting('val_input', val)}, and the targets' folders likewise"
        )
    ]


def random_seed() -> int:
    """Return a random seed from the range that DIGITS uses."""
    return random.randint(0, 1000)


def _write_split(
    staging: Path,
    name: str,
    pairs: Pairs,
    encoders: Encoders,
    size: int,
    advance: Callable[[int], None],
    statistics: LabelStatistics,
    applied: Counter[str],
) -> dict[str, str]:
    """Write features, labels and mean image of one split; return the databases' hashes, and gather ``statistics``.

    ``applied`` counts the images that were turned, and those laid over white.
    """
    with RecordWriter(staging / name / FEATURES) as features, RecordWriter(staging / name / LABELS) as labels:
        for encoded in encoders.map(_chunks(pairs, size)):
            statistics.merge(encoded.statistics)
            for record in encoded.features:
                features.write(record)
            for record in encoded.labels:
                labels.write(record)
            applied.update({"exif orientation": encoded.oriented, "transparency": encoded.transparent})
            advance(len(encoded.features))
    if features.count != len(pairs):
        raise DatasetError(f"{staging}: {features.count} of {len(pairs)} pairs were written")
    mean: NDArray[Any] | None = None
    total = encoders.take_total()
    if total is not None:
        mean = np.around(total / len(pairs)).astype(np.uint8)  # DIGITS rounds the mean to integers before storing it
    elif encoders.task.deep and not encoders.task.mixed_sizes:
        mean = mean_of_records(features.path)
    if mean is not None:
        (staging / name / MEAN_FILE).write_bytes(mean_blob(mean))
    return {f"{name}/{writer.path.name}": writer.digest.hexdigest() for writer in (features, labels)}


def _first(pairs: Pairs, options: CreationOptions, rules: LabelRules) -> tuple[tuple[str, str], tuple[Values, Values]]:
    """Return the files that all others are compared with, and their images.

    They are the first ones in a format that has grey and colour; WebP has no grey.
    """
    files = []
    for folder, names in ((pairs.input_folder, pairs.inputs), (pairs.target_folder, pairs.targets)):
        name = next((name for name in names if not name.lower().endswith(".webp")), names[0])
        files.append(str(Path(folder) / name))
    data = read_bytes(files[0])
    feature = decode(data, files[0], options.channels, exif=options.exif, max_pixels=options.max_pixels)
    if options.channels == "none":
        feature = without_colour(data, feature)
    label, _ = read_label(files[1], rules, LabelStatistics(), options.exif, grey=True, max_pixels=options.max_pixels)
    return (files[0], files[1]), (feature.values, label.values)


def _chunks(pairs: Pairs, size: int) -> Iterator[Chunk]:
    for start in range(0, len(pairs), size):
        yield pairs.part(start, start + size)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{setting(name, value)}: choose one of {', '.join(known)}")
