"""The options of a new dataset that concern its labels, and what the files of the targets add to them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from multiseg.dataset.foreground import (
    BINARY,
    SIDES,
    THRESHOLD,
    UNKNOWN,
    Foreground,
    Side,
    check_foreground,
    foreground_of,
)
from multiseg.dataset.label_rules import LabelRules
from multiseg.dataset.label_statistics import BOTH, NUMBERS, ONLY_WHITE, VALUES, WHITE, LabelStatistics
from multiseg.dataset.label_tables import PALETTE, Colour, Key, default_colours, read_colours, read_map, read_names
from multiseg.dataset.labels import KINDS, Labels
from multiseg.errors import DatasetError, MultisegWarning, SettingsError, setting
from multiseg.images import Channels
from multiseg.network import CLASSES, IMAGES, LabelKind

IGNORE = 255  # the usual label of pixels that count in no loss and no metric

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class LabelOptions:
    """The requested options of labels, see Dataset.create. Raises SettingsError for an invalid or unsuitable one."""

    kind: LabelKind = IMAGES
    classes: PathLike | Sequence[str] | None = None
    colours: PathLike | Sequence[Sequence[int]] | None = None
    ignore: int | None = IGNORE
    label_map: PathLike | Mapping[Any, Any] | None = None
    channels: Channels | None = None
    foreground: Side | float | None = None
    names: tuple[str, ...] = field(init=False, default=())
    table: tuple[Colour, ...] = field(init=False, default=())
    value_map: dict[Key, int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"{setting('labels', self.kind)}: choose one of {', '.join(KINDS)}")
        if self.channels is not None and self.channels not in get_args(Channels):
            raise SettingsError(
                f"{setting('label_channels', self.channels)}: choose one of {', '.join(get_args(Channels))}"
            )
        check_foreground(self.foreground)
        ignore = self.ignore
        if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, int) or not 0 <= ignore < VALUES):
            raise SettingsError(f"{setting('ignore', ignore)}: must be a whole number of 0 to 255, or none")
        if self.kind == IMAGES:
            for name, value in (("classes", self.classes), ("colours", self.colours)):
                if value is not None:
                    raise SettingsError(f"{setting(name)} belongs to class masks; add {setting('labels', CLASSES)}")
            if ignore not in (None, IGNORE):
                raise SettingsError(
                    f"{setting('ignore', ignore)} belongs to class masks; add {setting('labels', CLASSES)}"
                )
        elif self.channels is not None:
            raise SettingsError(
                f"{setting('label_channels')} converts targets that are pictures; class masks keep their values: leave it out"
            )
        if self.classes is not None:
            object.__setattr__(self, "names", read_names(self.classes))
        if self.colours is not None and self.colours != PALETTE:
            object.__setattr__(self, "table", read_colours(self.colours))
        if self.label_map is not None:
            object.__setattr__(self, "value_map", read_map(self.label_map))
        self._check_classes()

    def _check_classes(self) -> None:
        if self.names and self.table and len(self.names) != len(self.table):
            raise SettingsError(
                f"{_where('classes', self.classes)} has {len(self.names)} classes and {_where('colours', self.colours)} "
                f"{len(self.table)} colours; write one colour for each class"
            )
        count = self.count
        if count is not None and count > VALUES:
            raise SettingsError(
                f"{_where('classes', self.classes)} has {count} classes; labels are numbers of 0 to 255"
            )
        if self.kind == CLASSES and self.ignore is not None and count is not None and self.ignore < count:
            name = f" ({self.names[self.ignore]})" if self.names else ""
            raise SettingsError(
                f"{setting('ignore', self.ignore)} is one of the {count} classes{name}; ignore a number from {count}, or none"
            )
        if count is not None:
            for key, label in (self.value_map or {}).items():
                if label >= count and label != self.ignore:
                    raise SettingsError(
                        f"{_where('label_map', self.label_map)}: maps {_key_text(key)} to {label}, but the "
                        f"classes are 0 to {count - 1}; map it to one of these or to the ignored label"
                    )

    @property
    def count(self) -> int | None:
        """The number of classes that the options state; None if they do not."""
        return len(self.names or self.table) or None

    def rules(self, channels: Channels) -> LabelRules:
        """Return how target files are read; ``channels`` is the conversion of the inputs, which pictures follow by default."""
        return LabelRules(
            kind=self.kind,
            channels=channels if self.channels is None else self.channels,
            convert=self.channels in ("L", "RGB"),
            value_map=self.value_map,
            colours=self.table,
            classes=self.count if self.kind == CLASSES else None,
            ignore=self.ignore if self.kind == CLASSES else None,
        )

    def labels(self, statistics: LabelStatistics, folder: str) -> Labels:
        """Return what the labels are, completed by what the files have in common; ``folder`` has the masks.

        Raises DatasetError for masks whose foreground is ambiguous, or that have no class but 0 and the ignored value.
        """
        counts = statistics.counts
        if self.kind == IMAGES:
            return self._images(statistics, folder)
        present = [value for value in np.flatnonzero(counts).tolist() if value != self.ignore]
        if self.ignore is not None and counts[self.ignore] and present == [0]:
            raise DatasetError(
                f"{folder}: its masks have only the values 0 and {self.ignore}, which is ignored; if {self.ignore} is a class, "
                f"map it with {setting('label_map', f'{self.ignore}:1')}"
            )
        count = self.count or (present[-1] + 1 if present else 1)
        names = self.names or tuple(map(str, range(count)))
        return Labels(
            CLASSES, names, self._colours(count, statistics, folder), self.ignore, self._foreground_class(count)
        )

    def _images(self, statistics: LabelStatistics, folder: str) -> Labels:
        """Return labels that are images. Raises DatasetError if some masks are of 0 and 1, and others of 0 and 255."""
        numbers, white = statistics.examples.get(NUMBERS), statistics.examples.get(ONLY_WHITE)
        if statistics.has_numbers_and_white and max(statistics.values[:-1]) == 1 and BOTH not in statistics.examples:
            raise DatasetError(
                f"{numbers}: has the largest value 1, and {white} has 255 (1-bit files have 0 and 255): the masks have different "
                f"scales. If 1 and 255 are the object, add {setting('label_map', '255:1,1:1')}; if 255 is to be ignored, "
                f"{setting('labels', CLASSES)}; or save all masks with one scale"
            )
        if statistics.has_numbers_and_white and (self.foreground is None or self.foreground in SIDES):
            return Labels(foreground=UNKNOWN)
        return Labels(foreground=foreground_of(self.foreground, statistics.counts, folder))

    def _colours(self, count: int, statistics: LabelStatistics, folder: str) -> tuple[Colour, ...]:
        if self.table:
            return self.table
        if self.colours == PALETTE and not statistics.palette:
            raise DatasetError(
                f"{folder}: has no palette image, which {setting('colours', PALETTE)} takes the colours from; leave it out, or "
                f"state a table of colours"
            )
        colours = list(default_colours(count))
        if not self.value_map:  # the numbers of a map are not indices of the palette
            for index, (colour, _) in statistics.palette.items():
                if index < count:
                    colours[index] = colour
        return tuple(colours)

    def _foreground_class(self, count: int) -> Foreground:
        """Return the foreground of a network with one output for masks of two classes: class 1 unless class 0 is requested."""
        if self.foreground is None:
            return BINARY
        if count > 2 or self.foreground not in (*SIDES, 0, 1):
            raise SettingsError(
                f"{setting('foreground', self.foreground)}: there are {count} classes; it is 0 or 1, for masks of two classes"
            )
        return Foreground("dark" if self.foreground in ("dark", 0) else "light", BINARY.threshold)

    def to_json(self) -> dict[str, Any]:
        """Return the options that dataset.json holds beside the labels themselves."""
        plain: dict[str, Any] = {}
        if self.value_map is not None:
            plain["label_map"] = {_key_text(key): label for key, label in self.value_map.items()}
        if self.channels is not None:
            plain["label_channels"] = self.channels
        return plain


def warnings_about(labels: Labels, statistics: LabelStatistics, folder: str) -> list[MultisegWarning]:
    """Return what is suspicious about the labels of a new dataset."""
    found: list[str] = []
    values = np.flatnonzero(statistics.counts).tolist()
    shown = [value for value in values if labels.kind == IMAGES or value != labels.ignore]
    if len(shown) <= 1:
        what = f"every label is {shown[0]} everywhere" if shown else "every pixel of the labels is ignored"
        found.append(f"{folder}: {what}; nothing can be learned from that: check the masks")
    if statistics.first_lossy is not None:
        path, compression = statistics.first_lossy
        found.append(
            f"{path}: is a {compression} file, whose compression changes values at edges, as are "
            f"{statistics.lossy} of the targets; if they are masks, save them as PNG"
        )
    elif labels.kind == IMAGES and len(shown) > 1:
        if statistics.palette:
            path = next(path for _, path in statistics.palette.values())
            found.append(
                f"{path}: is a palette image, of which the numbers {shown[0]} to {shown[-1]} are kept; if they are classes, "
                f"create the dataset with {setting('labels', CLASSES)}; if the colours are a picture, with "
                f"{setting('label_channels', 'RGB')}"
            )
        elif not labels.foreground.known and statistics.has_numbers_and_white:
            found.append(_numbers_and_white(statistics))
        elif not labels.foreground.known:
            found.append(
                f"{folder}: all labels are from {shown[0]} to {shown[-1]}, on one side of {THRESHOLD}; if they are class "
                f"numbers, create the dataset with {setting('labels', CLASSES)}; if they are binary masks, "
                f"state {setting('foreground')}; until then metrics of the foreground are None"
            )
    return list(map(MultisegWarning, found))


def _numbers_and_white(statistics: LabelStatistics) -> str:
    """Return the warning about masks of small numbers and 255."""
    values = statistics.values
    path = statistics.examples.get(BOTH) or statistics.examples[NUMBERS]
    border = ",".join(["255:0", *(["0:0"] if values[0] == 0 else [])])
    binary = f", or add {setting('label_map', border)} to count it as 0" if max(values[:-1]) == 1 else ""
    return (
        f"{path}: has class numbers; all masks together have the values {', '.join(map(str, values[:-1]))} and {WHITE}, of which "
        f"{THRESHOLD} does not separate an object, so metrics of the foreground are None. To ignore {WHITE}, create the dataset "
        f"with {setting('labels', CLASSES)} and {setting('ignore', WHITE)}{binary}; if {WHITE} is the object or the background, "
        f"state {setting('foreground', WHITE)} or {setting('foreground', values[0])}"
    )


def _where(name: str, value: Any) -> str:
    """Return the name of the file that a setting names, or the setting."""
    return os.fspath(value) if isinstance(value, (str, os.PathLike)) else str(setting(name))


def _key_text(key: Key) -> str:
    return " ".join(map(str, key)) if isinstance(key, Iterable) else str(key)
