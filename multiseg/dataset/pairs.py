"""Find the image files of an input and a target folder and pair them; split them as DIGITS does."""

# Names are plain strings here: a hundred thousand Path objects would take ten times the memory and time.
# ruff: noqa: PTH112, PTH110, PTH116, PTH118, PTH119, PTH122

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

from multiseg.errors import DatasetError, SettingsError
from multiseg.images import SUFFIXES

_LISTED = 10  # names without a partner shown in an error


@dataclass(frozen=True)
class Pairs:
    """Image pairs: names relative to their folders, in order."""

    input_folder: str
    target_folder: str
    inputs: list[str]
    targets: list[str]

    def __len__(self) -> int:
        return len(self.inputs)

    def part(self, start: int, stop: int) -> list[tuple[str, str]]:
        """The paths of some of the pairs."""
        return [
            (os.path.join(self.input_folder, feature), os.path.join(self.target_folder, label))
            for feature, label in zip(self.inputs[start:stop], self.targets[start:stop], strict=True)
        ]


def find_pairs(input_folder: str, target_folder: str) -> Pairs:
    """Pair the images of two folders, nested ones included, sorted by path.

    Partners have the same path within their folder but for the suffix, or else the same base name. Raises
    DatasetError where a folder is missing or empty, or an image has no partner.
    """
    inputs, targets = _find_images(input_folder), _find_images(target_folder)
    problems = ""
    for key in (_stem, lambda name: os.path.basename(_stem(name))):
        partners, problem = _match(inputs, targets, key)
        if partners is not None:
            return Pairs(input_folder, target_folder, inputs, partners)
        problems = problems or problem
    raise DatasetError(
        f"{input_folder} holds {len(inputs)} images and {target_folder} {len(targets)}, "
        f"which must match by name; {problems}"
    )


def split_pairs(pairs: Pairs, val_percent: float, seed: int) -> tuple[Pairs, Pairs]:
    """Shuffle the pairs and set the first ``val_percent`` percent, rounded down, aside: (training, validation).

    As DIGITS does it; ``random.Random(seed).shuffle`` gives the same order in all Python versions from 3.2 on.
    """
    order = list(range(len(pairs)))
    random.Random(seed).shuffle(order)
    count = int(len(pairs) * Fraction(val_percent) / 100)

    def take(some: list[int]) -> Pairs:
        return Pairs(
            pairs.input_folder,
            pairs.target_folder,
            [pairs.inputs[index] for index in some],
            [pairs.targets[index] for index in some],
        )

    return take(order[count:]), take(order[:count])


def refuse_overlap(train_folder: str, val_folder: str) -> None:
    """Raise SettingsError where a validation folder is, holds or lies within a training folder."""
    train, val = os.path.realpath(train_folder), os.path.realpath(val_folder)
    if os.path.commonpath([train, val]) in (train, val):
        raise SettingsError(
            f"the validation folder {val_folder} overlaps the training folder {train_folder}; "
            "keep them apart, or leave it out and set aside a percentage"
        )


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _find_images(folder: str) -> list[str]:
    """List the image files below a folder, relative to it, sorted by path. Links to folders are followed."""
    if not os.path.isdir(folder):
        raise DatasetError(f"{folder}: no such folder" if not os.path.exists(folder) else f"{folder}: is not a folder")
    found: list[str] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        below, above = waiting.pop()
        path = os.path.join(folder, below)
        try:
            status = os.stat(path)
            here = (status.st_dev, status.st_ino)
            if here in above:
                raise DatasetError(f"{path}: is a link to a folder that it lies in; remove it")
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir():
                        waiting.append((os.path.join(below, entry.name), above | {here}))
                    elif entry.name.lower().endswith(SUFFIXES):
                        found.append(os.path.join(below, entry.name))
        except OSError as error:
            raise DatasetError(f"{path}: cannot be listed: {error.strerror}") from error
    if not found:
        raise DatasetError(f"{folder}: holds no images; supported are {' '.join(s[1:] for s in SUFFIXES)}")
    found.sort()
    return found


def _match(inputs: list[str], targets: list[str], key: Callable[[str], str]) -> tuple[list[str] | None, str]:
    """Return each input's target, or None and what stands in the way."""
    if len(inputs) == len(targets) and all(key(a) == key(b) for a, b in zip(inputs, targets, strict=True)):
        return targets, ""  # the usual case, also where a.jpg and a.png stand beside each other in both folders
    by_key = {key(name): name for name in targets}
    if len(by_key) < len(targets):
        doubled = next(name for name in targets if by_key[key(name)] != name)
        return None, f"two targets have the same name: {doubled}, {by_key[key(doubled)]}"
    names = {key(name): name for name in inputs}
    if len(names) < len(inputs):
        doubled = next(name for name in inputs if names[key(name)] != name)
        return None, f"two inputs have the same name: {doubled}, {names[key(doubled)]}"
    lonely = [f"input {name}" for name in inputs if key(name) not in by_key]
    lonely += [f"target {name}" for name in targets if key(name) not in names]
    if lonely:
        more = f" and {len(lonely) - _LISTED} more" if len(lonely) > _LISTED else ""
        return None, f"without a partner: {', '.join(islice(lonely, _LISTED))}{more}"
    return [by_key[key(name)] for name in inputs], ""
