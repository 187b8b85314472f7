"""PASCAL VOC's folder layout: JPEGImages, SegmentationClass and the lists in ImageSets/Segmentation; its classes and colours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from multiseg.dataset.label_tables import Colour, voc_colour
from multiseg.dataset.pairs import Pairs
from multiseg.errors import DatasetError
from multiseg.files import open_regular, read_text
from multiseg.images import SUFFIXES

IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
COLOURS: tuple[Colour, ...] = tuple(map(voc_colour, range(len(NAMES))))


def read_layout(folder: str) -> tuple[Pairs, Pairs]:
    """Return the training and the validation pairs of a folder in VOC's layout, in the order of its lists.

    Raises DatasetError if a folder or list is missing, a listed image does not exist, or an image is in both lists.
    """
    root = Path(folder)
    for part in (IMAGES, MASKS, LISTS):
        if not (root / part).is_dir():
            nested = next((path.parent for path in sorted(root.glob(f"*/{IMAGES}"))), None)
            advice = f"choose {nested}" if nested else "choose the folder that contains it, such as VOCdevkit/VOC2012"
            raise DatasetError(f"{root / part}: no such folder of PASCAL VOC's layout; {advice}")
    images, masks = _by_name(root / IMAGES), _by_name(root / MASKS)
    splits = [_pairs(root, root / LISTS / f"{split}.txt", images, masks) for split in ("train", "val")]
    train, val = splits
    common = sorted(set(train.inputs) & set(val.inputs))
    if common:
        raise DatasetError(
            f"{root / LISTS}: {Path(common[0]).stem} is in train.txt and in val.txt ({len(common)} names are); remove it from one"
        )
    if not len(train):
        raise DatasetError(
            f"{root / LISTS / 'train.txt'}: has no names; write those of the training images, one in each line"
        )
    return train, val


def have_one_size(splits: Iterable[Pairs]) -> bool:
    """Return whether all inputs have the same size, from the headers of the files; those that cannot be read count as equal."""
    sizes = set()
    for pairs in splits:
        for path, _ in pairs.part(0, len(pairs)):
            try:
                with open_regular(path) as file, Image.open(file) as image:
                    sizes.add(image.size)
            except OSError:  # encoding reports it
                continue
    return len(sizes) <= 1


def _by_name(folder: Path) -> dict[str, str]:
    """Return the image files of a folder by their names without suffix."""
    return {path.stem: path.name for path in sorted(folder.iterdir()) if path.name.lower().endswith(SUFFIXES)}


def _pairs(root: Path, list_file: Path, images: dict[str, str], masks: dict[str, str]) -> Pairs:
    try:
        lines = read_text(list_file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(
            f"{list_file}: cannot be read: {reason}; write the names of the images without suffix, one in each line"
        ) from error
    inputs, targets, seen = [], [], set()
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        for files, part, suffix in ((images, IMAGES, ".jpg"), (masks, MASKS, ".png")):
            if name not in files:
                raise DatasetError(
                    f"{list_file}:{number}: {root / part / (name + suffix)} does not exist; add it or remove the line"
                )
        if name in seen:
            raise DatasetError(f"{list_file}:{number}: names {name} twice; remove the line")
        seen.add(name)
        inputs.append(images[name])
        targets.append(masks[name])
    return Pairs(str(root / IMAGES), str(root / MASKS), inputs, targets)
