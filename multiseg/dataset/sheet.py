"""Write a contact sheet: pairs of a dataset on one page, to check by eye that inputs and targets match."""

from __future__ import annotations

import base64
import io
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

from multiseg.dataset import class_colours
from multiseg.dataset.dataset import Dataset
from multiseg.dataset.label_tables import Colour
from multiseg.dataset.labels import Labels
from multiseg.errors import DatasetError, SettingsError, setting
from multiseg.files import write_text
from multiseg.images import picture_of, save_image
from multiseg.images.classes import class_image, overlay_image
from multiseg.network import CLASSES

_SIDE = 96  # pixels of the longer side of a picture on the sheet
_CLASSES_SIDE = 192  # of larger pictures with class masks, whose objects are small
_GAP = 6
_CAPTION = 16
_COLUMNS = 4
_SWATCH = 12

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem;
         color: #222; background: #f4f4f2; }
  h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0; } dt { color: #666; }
  dd { margin: 0; overflow-wrap: anywhere; }
  .pairs { display: flex; flex-wrap: wrap; gap: 14px; }
  figure { margin: 0; padding: 8px; background: #fff; border-radius: 4px; box-shadow: 0 1px 2px #0003; }
  figcaption { font-size: 12px; color: #666; margin-bottom: 4px; }
  .views { display: flex; gap: 6px; } .views span { display: block; font-size: 11px; color: #888; text-align: center; }
  .legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0; padding: 0; list-style: none; }
  .legend i { display: inline-block; width: 12px; height: 12px; margin-right: 5px; outline: 1px solid #0005; }
  .legend small { color: #666; }
  img { display: block; image-rendering: pixelated; outline: 1px solid #ddd; }
</style>
<h1>{{ title }}</h1>
<dl>{% for name, value in facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}
{% if legend %}<dt>classes</dt><dd><ul class="legend">{% for entry in legend %}<li><i style="background: {{ entry.css }}"></i>{{
 entry.name }} <small>{{ entry.numbers }}</small></li>
{% endfor %}</ul></dd>{% endif %}</dl>
{% for split, pairs in splits %}
<h2>{{ split }}</h2>
<div class="pairs">
{% for pair in pairs %}<figure><figcaption>{{ pair.caption }}</figcaption><div class="views">
{% for name, data, width, height in pair.views %}<div><img alt="{{ name }} of {{ pair.caption }}" src="{{ data }}"
 width="{{ width }}" height="{{ height }}"><span>{{ name }}</span></div>
{% endfor %}</div></figure>
{% endfor %}</div>
{% endfor %}
</html>
"""


@dataclass(frozen=True)
class _Entry:
    """An entry of the legend: the name and colour of a class, and its number and fraction of the pixels as text."""

    name: str
    colour: Colour
    numbers: str

    @property
    def css(self) -> str:
        return "rgb({}, {}, {})".format(*self.colour)


@dataclass(frozen=True)
class _Pair:
    """A pair's caption, its pictures by name, and whether its target has the colours of classes."""

    caption: str
    pictures: dict[str, Image.Image]
    of_classes: bool


def write_sheet(dataset: Dataset, out: str | os.PathLike[str], count: int = 24) -> Path:
    """Write a contact sheet of up to ``count`` pairs of each split, evenly spaced, to an .html or .png file.

    Each pair is shown as input, target, and overlay: the input over its target, whose dark part is tinted red.
    Masks of class indices have the colours of the classes, which a legend names; the overlay has no colour on the background.
    Raises SettingsError for an unknown file type or a count below 1, DatasetError for a record that cannot be read,
    ImageError if the file cannot be written.
    """
    path = Path(out)
    if count < 1:
        raise SettingsError(f"{setting('count', count)}: must be 1 or more")
    splits = []
    for split in (dataset.train, dataset.val):
        positions = sorted(set(np.linspace(0, len(split) - 1, min(count, len(split))).astype(int).tolist()))
        if positions:
            pairs = [_pair(number, *split[number], dataset.labels) for number in positions]
            splits.append((f"{split.name}: {len(positions)} of {len(split)} pairs", pairs))
    legend = _legend(dataset)
    side = _side([pair for _, pairs in splits for pair in pairs], dataset.labels)
    if path.suffix.lower() == ".png":
        return save_image(_draw(f"{dataset.path}", splits, legend, side), path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"{path}: a contact sheet is an .html or a .png file")
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    text = page.render(
        title=f"Dataset {dataset.path}",
        facts=_facts(dataset),
        legend=legend,
        splits=[(title, [_for_page(pair, side) for pair in pairs]) for title, pairs in splits],
    )
    try:
        write_text(path, text)
    except SettingsError as error:
        raise DatasetError(error) from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _pair(number: int, feature: NDArray[Any], label: NDArray[Any] | None, labels: Labels) -> _Pair:
    pictures = {"input": picture_of(feature)}
    of_classes = False
    caption = f"{number}, {feature.shape[2]}x{feature.shape[1]}{_range_text('input', feature)}"
    if label is None:
        caption += ", no label"
    elif label.size == 1:
        caption += f", label {label.flat[0]}"
    else:
        of_classes = labels.kind == CLASSES and label.shape[0] == 1
        if of_classes:
            classes = np.clip(label[0], 0, class_colours.PALETTE_SIZE - 1).astype(np.uint8)
            palette = class_colours.palette(labels)
            pictures["target"] = class_image(classes, palette).convert("RGB")
        else:
            pictures["target"] = picture_of(label)
        if label.shape[1:] == feature.shape[1:]:
            pictures["overlay"] = (
                overlay_image(pictures["input"], classes, palette, transparent=class_colours.background(labels))
                if of_classes
                else _overlay(pictures["input"], pictures["target"])
            )
        if not of_classes:
            caption += _range_text("target", label)
    return _Pair(caption, pictures, of_classes)


def _range_text(name: str, image: NDArray[Any]) -> str:
    """Return the range by which values of other types than uint8 are drawn, from black to white."""
    return "" if image.dtype == np.uint8 else f", {name} {image.min():.4g} to {image.max():.4g}"


def _legend(dataset: Dataset) -> list[_Entry]:
    """Return the entries of the classes and of the ignored label; none for labels that are images."""
    labels = dataset.labels
    if labels.kind != CLASSES:
        return []
    stored = [dataset.label_counts(split) for split in ("train", "val")]
    counts: Counter[int] = Counter()
    for one in stored:
        counts.update(one or {})
    total = sum(counts.values())
    values = sorted({*range(len(labels.names)), *counts} - {labels.ignore})
    colours = class_colours.palette(labels)

    def numbers(value: int) -> str:
        return f"{value}, {counts[value] / total:.2%}" if total else f"{value}"

    entries = [_Entry(class_colours.class_name(labels, value), colours[value], numbers(value)) for value in values]
    if labels.ignore is not None:
        entries.append(_Entry("ignored", colours[labels.ignore], numbers(labels.ignore)))
    return entries


def _side(pairs: list[_Pair], labels: Labels) -> int:
    """Return the longer side of pictures on the sheet: larger ones for class masks, unless the images are small."""
    longest = max((max(picture.size) for pair in pairs for picture in pair.pictures.values()), default=0)
    return _CLASSES_SIDE if labels.kind == CLASSES and longest > _SIDE else _SIDE


def _overlay(feature: Image.Image, label: Image.Image) -> Image.Image:
    tint = ImageOps.colorize(label.convert("L"), black=(240, 90, 80), white="white")
    return ImageChops.multiply(feature.convert("RGB"), tint)


def _scaled(image: Image.Image, side: int, of_classes: bool = False) -> Image.Image:
    """Scale an image to the sheet's cell size: small ones by a whole factor, so that single pixels stay visible.

    The colours ``of_classes`` are not mixed.
    """
    longer = max(image.size)
    if longer > side:
        method = Image.Resampling.NEAREST if of_classes else Image.Resampling.BICUBIC
        return ImageOps.contain(image, (side, side), method)
    factor = side // longer
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _for_page(pair: _Pair, side: int) -> dict[str, Any]:
    views = []
    for name, picture in pair.pictures.items():
        shown = picture if max(picture.size) <= side else _scaled(picture, side, pair.of_classes and name == "target")
        buffer = io.BytesIO()
        shown.save(buffer, "PNG")
        factor = max(1, side // max(shown.size))
        data = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        views.append((name, data, shown.width * factor, shown.height * factor))
    return {"caption": pair.caption, "views": views}


def _draw(title: str, splits: list[tuple[str, list[_Pair]]], legend: list[_Entry], side: int) -> Image.Image:
    views = max((len(pair.pictures) for _, pairs in splits for pair in pairs), default=1)
    columns = _COLUMNS * _SIDE // side
    cell_width = views * (side + _GAP) + 2 * _GAP
    cell_height = _CAPTION + side + 2 * _GAP
    rows = sum(-(-len(pairs) // columns) for _, pairs in splits)
    heading = _CAPTION + 2 * _GAP
    width = columns * cell_width + _GAP
    legend_rows = _legend_rows(legend, width)
    height = rows * cell_height + (1 + len(splits)) * heading + len(legend_rows) * _CAPTION
    sheet = Image.new("RGB", (width, height), (244, 244, 242))
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), _plain(f"{title}   (input, target, overlay)"), fill="black")
    top = heading
    for row in legend_rows:
        for left, entry in row:
            draw.rectangle((left, top, left + _SWATCH, top + _SWATCH), fill=entry.colour, outline=(110, 110, 110))
            draw.text((left + _SWATCH + _GAP, top + 1), _legend_text(entry), fill="black")
        top += _CAPTION
    for name, pairs in splits:
        draw.text((_GAP, top + _GAP), name, fill="black")
        top += heading
        for number, pair in enumerate(pairs):
            left = _GAP + number % columns * cell_width
            above = top + number // columns * cell_height
            draw.text((left, above), pair.caption, fill=(90, 90, 90))
            for place, (view, picture) in enumerate(pair.pictures.items()):
                shown = _scaled(picture, side, pair.of_classes and view == "target")
                sheet.paste(shown, (left + place * (side + _GAP), above + _CAPTION))
        top += -(-len(pairs) // columns) * cell_height
    return sheet


def _legend_rows(legend: list[_Entry], width: int) -> list[list[tuple[int, _Entry]]]:
    """Return the legend's entries in rows, each with the place of its left side."""
    rows: list[list[tuple[int, _Entry]]] = []
    left = width
    for entry in legend:
        needed = _SWATCH + 4 * _GAP + int(ImageFont.load_default().getlength(_legend_text(entry)))
        if left + needed > width:
            rows.append([])
            left = _GAP
        rows[-1].append((left, entry))
        left += needed
    return rows


def _legend_text(entry: _Entry) -> str:
    return _plain(f"{entry.name} ({entry.numbers})")


def _plain(text: str) -> str:
    """Replace characters that Pillow's built-in font lacks: it has Latin letters only."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _facts(dataset: Dataset) -> list[tuple[str, Any]]:
    info = dataset.info
    facts: list[tuple[str, Any]] = [
        ("images", "x".join(map(str, dataset.train.shape)) if dataset.train.shape else "of different sizes")
    ]
    names = (
        "input",
        "target",
        "val_input",
        "val_target",
        "input_ending",
        "target_ending",
        "seed",
        "val_percent",
        "channels",
        "feature_encoding",
        "label_encoding",
        "content_hash",
    )
    facts += [(name.replace("_", " "), info[name]) for name in names if info.get(name) is not None]
    if dataset.mean_pixel is not None:
        facts.append(("mean pixel", ", ".join(f"{value:.2f}" for value in dataset.mean_pixel)))
    return facts
