"""Find and pair the image files of an input and a target folder; split them into training and validation as DIGITS does."""

# Paths are plain strings here: a hundred thousand Path objects would take ten times the memory and time.
# ruff: noqa: PTH112, PTH110, PTH116, PTH118, PTH119, PTH122

from __future__ import annotations

import os
import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice

from multiseg.errors import DatasetError, SettingsError, setting
from multiseg.images import ARRAY_SUFFIX, SUFFIXES

_NOT_DATA = ("__MACOSX",)  # folder of macOS metadata in archives, whose files are named like the images
_TRAINING = ("train", "training")  # names of folders
_VALIDATION = ("val", "valid", "validation", "test", "testing")
_MAX_LISTED = 10  # names without a partner shown in an error


@dataclass(frozen=True)
class Pairs:
    """Image pairs in order; file names are relative to their folders.

    ``other_inputs`` and ``other_targets`` count the files in the folders that are not images, by extension.
    """

    input_folder: str
    target_folder: str
    inputs: list[str]
    targets: list[str]
    other_inputs: Mapping[str, int] = field(default_factory=dict)
    other_targets: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.inputs)

    def part(self, start: int, stop: int) -> list[tuple[str, str]]:
        """Return the paths of the pairs from ``start`` to ``stop``, exclusive."""
        return [
            (os.path.join(self.input_folder, feature), os.path.join(self.target_folder, label))
            for feature, label in zip(self.inputs[start:stop], self.targets[start:stop], strict=True)
        ]


def find_pairs(input_folder: str, target_folder: str, input_ending: str = "", target_ending: str = "") -> Pairs:
    """Pair the images of two folders and their subfolders, sorted by path.

    Partners have the same path within their folder, apart from the suffix; failing that, the same base name. The endings of the
    names before the suffix, such as ``_mask``, do not count; images of other endings are left out. Raises DatasetError if a
    folder is missing or empty, or an image has no partner.
    """
    inputs, other_inputs = _find_images(input_folder, input_ending)
    targets, other_targets = _find_images(target_folder, target_ending)
    problems = ""

    def path_of_input(name: str) -> str:
        return _without(_stem(name), input_ending)

    def path_of_target(name: str) -> str:
        return _without(_stem(name), target_ending)

    for keys in (
        (path_of_input, path_of_target),
        (lambda name: os.path.basename(path_of_input(name)), lambda name: os.path.basename(path_of_target(name))),
    ):
        partners, problem = _match(inputs, targets, *keys)
        if partners is not None:
            return Pairs(input_folder, target_folder, inputs, partners, other_inputs, other_targets)
        problems = problems or problem
    names = ({os.path.basename(_stem(name)) for name in of_kind} for of_kind in (inputs, targets))
    if next(names).isdisjoint(next(names)) and not input_ending and not target_ending:
        problems += f"; if names end otherwise, as in a_mask.png, specify {setting('target_ending', example='_mask')}"
    raise DatasetError(
        f"{input_folder} contains {len(inputs)} images and {target_folder} {len(targets)}, "
        f"which must match by name; {problems}"
    )


def split_pairs(pairs: Pairs, val_percent: float, seed: int) -> tuple[Pairs, Pairs]:
    """Shuffle the pairs and reserve the first ``val_percent`` percent, rounded down: return (training, validation).

    This is DIGITS' rule; ``random.Random(seed).shuffle`` returns the same order in all Python versions since 3.2.
    """
    order = list(range(len(pairs)))
    random.Random(seed).shuffle(order)
    count = int(len(pairs) * Fraction(val_percent) / 100)

    def select(indices: list[int]) -> Pairs:
        return Pairs(
            pairs.input_folder,
            pairs.target_folder,
            [pairs.inputs[index] for index in indices],
            [pairs.targets[index] for index in indices],
            pairs.other_inputs,
            pairs.other_targets,
        )

    return select(order[count:]), select(order[:count])


def split_folders(pairs: Pairs) -> tuple[str, str] | None:
    """Return the two folders of the inputs whose names state a split, such as ``train`` and ``val``; None if there are none."""
    folders = {name.partition(os.sep)[0] for name in pairs.inputs if os.sep in name}
    train, val = ([name for name in sorted(folders) if name.lower() in names] for names in (_TRAINING, _VALIDATION))
    return (train[0], val[0]) if train and val else None


def refuse_overlap(train_folder: str, val_folder: str) -> None:
    """Raise SettingsError if a validation folder equals, contains or is contained in a training folder."""
    train, val = os.path.realpath(train_folder), os.path.realpath(val_folder)
    if os.path.commonpath([train, val]) in (train, val):
        raise SettingsError(
            f"the validation folder {val_folder} overlaps the training folder {train_folder}; "
            "use separate folders, or omit it and reserve a percentage for validation"
        )


def _stem(name: str) -> str:
    """Return a name without suffix, in Unicode's composed form: macOS stores accents as separate characters."""
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])


def _without(stem: str, ending: str) -> str:
    return stem.removesuffix(unicodedata.normalize("NFC", ending))


def _find_images(folder: str, ending: str = "") -> tuple[list[str], Counter[str]]:
    """Return the image files below a folder, relative to it and sorted by path, and the number of other files by extension.

    A folder without images is one of arrays: .npy files. Hidden files and folders, such as Jupyter's .ipynb_checkpoints, are
    skipped, and so are images whose names do not end in ``ending`` before the suffix. Links to folders are followed.
    """
    if not os.path.isdir(folder):
        raise DatasetError(f"{folder}: no such folder" if not os.path.exists(folder) else f"{folder}: is not a folder")
    images: list[str] = []
    arrays: list[str] = []
    others: Counter[str] = Counter()
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]  # subfolder, identities of its parents
    while pending:
        subfolder, parents = pending.pop()
        path = os.path.join(folder, subfolder)
        try:
            status = os.stat(path)
            inode = (status.st_dev, status.st_ino)
            if inode in parents:
                raise DatasetError(f"{path}: is a link to one of its parent folders; remove it")
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name in _NOT_DATA:
                        continue
                    if entry.is_dir():
                        pending.append((os.path.join(subfolder, entry.name), parents | {inode}))
                    elif entry.name.lower().endswith(SUFFIXES):
                        images.append(os.path.join(subfolder, entry.name))
                    elif entry.name.lower().endswith(ARRAY_SUFFIX):
                        arrays.append(os.path.join(subfolder, entry.name))
                    else:
                        others[os.path.splitext(entry.name)[1].lower() or "no extension"] += 1
        except OSError as error:
            raise DatasetError(f"{path}: cannot be listed: {error.strerror}") from error
    if images and arrays:
        others[ARRAY_SUFFIX] = len(arrays)
    images = images or arrays
    if ending:
        named = [name for name in images if _without(_stem(name), ending) != _stem(name)]
        if images and not named:
            raise DatasetError(
                f"{folder}: has no image whose name ends in {ending!r} before the extension; one is called {min(images)}"
            )
        others.update(os.path.splitext(name)[1].lower() for name in set(images) - set(named))
        images = named
    if not images:
        supported = " ".join(suffix[1:] for suffix in (*SUFFIXES, ARRAY_SUFFIX))
        found = f"; it contains {left_out_text(others)}" if others else ""
        raise DatasetError(f"{folder}: contains no images; supported are {supported}{found}")
    images.sort()
    return images, others


def left_out_text(counts: Mapping[str, int]) -> str:
    """Return counts of files by extension as text, such as "2 .gif, 1 .txt"."""
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))


def _match(
    inputs: list[str], targets: list[str], key: Callable[[str], str], key_of_target: Callable[[str], str]
) -> tuple[list[str] | None, str]:
    """Return the target of each input, or None and the problem."""
    if len(inputs) == len(targets) and all(key(a) == key_of_target(b) for a, b in zip(inputs, targets, strict=True)):
        return targets, ""  # the usual case; it also covers folders that both contain a.jpg and a.png
    by_key = {key_of_target(name): name for name in targets}
    if len(by_key) < len(targets):
        duplicate = next(name for name in targets if by_key[key_of_target(name)] != name)
        return None, f"two targets have the same name: {duplicate}, {by_key[key_of_target(duplicate)]}"
    names = {key(name): name for name in inputs}
    if len(names) < len(inputs):
        duplicate = next(name for name in inputs if names[key(name)] != name)
        return None, f"two inputs have the same name: {duplicate}, {names[key(duplicate)]}"
    unpaired = [f"input {name}" for name in inputs if key(name) not in by_key]
    unpaired += [f"target {name}" for name in targets if key_of_target(name) not in names]
    if unpaired:
        more = f" and {len(unpaired) - _MAX_LISTED} more" if len(unpaired) > _MAX_LISTED else ""
        return None, f"without a partner: {', '.join(islice(unpaired, _MAX_LISTED))}{more}"
    return [by_key[key(name)] for name in inputs], ""
