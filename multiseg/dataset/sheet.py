"""Write a contact sheet: pairs of a dataset on one page, to check by eye that inputs and targets match."""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageOps

from multiseg.dataset.dataset import Dataset
from multiseg.dataset.label_statistics import VALUES
from multiseg.dataset.label_tables import default_colours
from multiseg.dataset.labels import Labels
from multiseg.errors import DatasetError, SettingsError
from multiseg.images import picture_of, save_image
from multiseg.network import CLASSES

_SIDE = 96  # pixels of the longer side of a picture on the sheet
_GAP = 6
_CAPTION = 16
_COLUMNS = 4
_IGNORED = (224, 224, 192)  # colour of the border in PASCAL VOC's masks

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
         color: #222; background: #f4f4f2; }
  h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0; } dt { color: #666; }
  dd { margin: 0; overflow-wrap: anywhere; }
  .pairs { display: flex; flex-wrap: wrap; gap: 14px; }
  figure { margin: 0; padding: 8px; background: #fff; border-radius: 4px; box-shadow: 0 1px 2px #0003; }
  figcaption { font-size: 12px; color: #666; margin-bottom: 4px; }
  .views { display: flex; gap: 6px; } .views span { display: block; font-size: 11px; color: #888; text-align: center; }
  img { display: block; image-rendering: pixelated; outline: 1px solid #ddd; }
</style>
<h1>{{ title }}</h1>
<dl>{% for name, value in facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
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
class _Pair:
    """A pair's caption, and its pictures by name."""

    caption: str
    pictures: dict[str, Image.Image]


def write_sheet(dataset: Dataset, out: str | os.PathLike[str], count: int = 24) -> Path:
    """Write a contact sheet of up to ``count`` pairs of each split, evenly spaced, to an .html or .png file.

    Each pair is shown as input, target, and overlay: the input over its target, whose dark part is tinted red.
    Masks of class indices have the colours of the classes.
    Raises SettingsError for an unknown file type or a count below 1, DatasetError for a record that cannot be read,
    ImageError if the file cannot be written.
    """
    path = Path(out)
    if count < 1:
        raise SettingsError(f"count {count} must be 1 or more")
    splits = []
    for split in (dataset.train, dataset.val):
        positions = sorted(set(np.linspace(0, len(split) - 1, min(count, len(split))).astype(int).tolist()))
        if positions:
            pairs = [_pair(number, *split[number], dataset.labels) for number in positions]
            splits.append((f"{split.name}: {len(positions)} of {len(split)} pairs", pairs))
    if path.suffix.lower() == ".png":
        return save_image(_draw(f"{dataset.path}", splits), path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"{path}: a contact sheet is an .html or a .png file")
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    text = page.render(
        title=f"Dataset {dataset.path}",
        facts=_facts(dataset),
        splits=[(title, [_for_page(pair) for pair in pairs]) for title, pairs in splits],
    )
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _pair(number: int, feature: NDArray[Any], label: NDArray[Any] | None, labels: Labels) -> _Pair:
    pictures = {"input": picture_of(feature)}
    caption = f"{number}, {feature.shape[2]}x{feature.shape[1]}{_range_text('input', feature)}"
    if label is None:
        caption += ", no label"
    elif label.size == 1:
        caption += f", label {label.flat[0]}"
    else:
        of_classes = labels.kind == CLASSES and label.shape[0] == 1
        pictures["target"] = _coloured(label[0], labels) if of_classes else picture_of(label)
        if label.shape[1:] == feature.shape[1:]:
            overlay = _blended if of_classes else _overlay
            pictures["overlay"] = overlay(pictures["input"], pictures["target"])
        if not of_classes:
            caption += _range_text("target", label)
    return _Pair(caption, pictures)


def _range_text(name: str, image: NDArray[Any]) -> str:
    """Return the range by which values of other types than uint8 are drawn, from black to white."""
    return "" if image.dtype == np.uint8 else f", {name} {image.min():.4g} to {image.max():.4g}"


def _coloured(label: NDArray[Any], labels: Labels) -> Image.Image:
    """Return a class mask (H, W) in the colours of the classes; ignored pixels are as in PASCAL VOC."""
    colours = [*labels.colours, *default_colours(VALUES)[len(labels.colours) :]]
    if labels.ignore is not None:
        colours[labels.ignore] = _IGNORED
    return Image.fromarray(np.array(colours, np.uint8)[np.clip(label, 0, VALUES - 1).astype(np.uint8)])


def _blended(feature: Image.Image, label: Image.Image) -> Image.Image:
    return Image.blend(feature.convert("RGB"), label, 0.5)


def _overlay(feature: Image.Image, label: Image.Image) -> Image.Image:
    tint = ImageOps.colorize(label.convert("L"), black=(240, 90, 80), white="white")
    return ImageChops.multiply(feature.convert("RGB"), tint)


def _scaled(image: Image.Image) -> Image.Image:
    """Scale an image to the sheet's cell size: small ones by a whole factor, so that single pixels stay visible."""
    longer = max(image.size)
    if longer > _SIDE:
        return ImageOps.contain(image, (_SIDE, _SIDE))
    factor = _SIDE // longer
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _for_page(pair: _Pair) -> dict[str, Any]:
    views = []
    for name, picture in pair.pictures.items():
        shown = picture if max(picture.size) <= _SIDE else _scaled(picture)
        buffer = io.BytesIO()
        shown.save(buffer, "PNG")
        factor = max(1, _SIDE // max(shown.size))
        data = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        views.append((name, data, shown.width * factor, shown.height * factor))
    return {"caption": pair.caption, "views": views}


def _draw(title: str, splits: list[tuple[str, list[_Pair]]]) -> Image.Image:
    views = max((len(pair.pictures) for _, pairs in splits for pair in pairs), default=1)
    cell_width = views * (_SIDE + _GAP) + 2 * _GAP
    cell_height = _CAPTION + _SIDE + 2 * _GAP
    rows = sum(-(-len(pairs) // _COLUMNS) for _, pairs in splits)
    heading = _CAPTION + 2 * _GAP
    sheet = Image.new(
        "RGB", (_COLUMNS * cell_width + _GAP, rows * cell_height + (1 + len(splits)) * heading), (244, 244, 242)
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), _plain(f"{title}   (input, target, overlay)"), fill="black")
    top = heading
    for name, pairs in splits:
        draw.text((_GAP, top + _GAP), name, fill="black")
        top += heading
        for number, pair in enumerate(pairs):
            left = _GAP + number % _COLUMNS * cell_width
            above = top + number // _COLUMNS * cell_height
            draw.text((left, above), pair.caption, fill=(90, 90, 90))
            for place, picture in enumerate(pair.pictures.values()):
                sheet.paste(_scaled(picture), (left + place * (_SIDE + _GAP), above + _CAPTION))
        top += -(-len(pairs) // _COLUMNS) * cell_height
    return sheet


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
        "seed",
        "val_percent",
        "channels",
        "feature_encoding",
        "label_encoding",
        "content_hash",
    )
    facts += [(name.replace("_", " "), info[name]) for name in names if info.get(name) is not None]
    labels = dataset.labels
    if labels.kind == CLASSES:
        legend = [f"{name} ({r} {g} {b})" for name, (r, g, b) in zip(labels.names, labels.colours, strict=False)]
        facts.append(("classes", ", ".join(legend) or "without names"))
        facts.append(("ignored", "none" if labels.ignore is None else labels.ignore))
    if dataset.mean_pixel is not None:
        facts.append(("mean pixel", ", ".join(f"{value:.2f}" for value in dataset.mean_pixel)))
    return facts
