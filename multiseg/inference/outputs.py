"""Write outputs as pictures, as arrays, or as a dataset of inputs and outputs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from multiseg.dataset.description import combined_hash, write_description
from multiseg.dataset.encoding import Sum
from multiseg.dataset.finishing import Finishing
from multiseg.dataset.labels import Labels
from multiseg.dataset.names import FEATURES, LABELS, MEAN, TRAIN
from multiseg.dataset.reading import mean_of_records
from multiseg.dataset.records import encoded_datum, mean_blob, raw_datum, values_datum
from multiseg.dataset.staging import staged_folder
from multiseg.dataset.writing import RecordWriter
from multiseg.errors import DatasetError, ImageError, SettingsError, setting
from multiseg.files import make_folder, sync_one, write_bytes, write_text
from multiseg.images import encode_image, encoded, format_of, image_to_array
from multiseg.inference.output import Output
from multiseg.network import CLASSES

Format = Literal["png", "npy", "lmdb"]
Write = Callable[[str, Output], Path]
PREDICTIONS = "predictions.csv"  # of networks that classify images
_CLASS_FORMATS = ("PNG", "BMP", "TIFF")  # Pillow's formats that keep the values of a palette image


def save(output: Output, path: str | Path, show_input: bool = False, sync_folder: bool = True) -> Path:
    """Write an output atomically: the array (C, H, W) float32 for the extension .npy, else a picture; return the path.

    Classes of pixels are written as a palette image whose values are the classes. ``show_input`` puts the input to the left of
    the output. ``sync_folder`` is as in :func:`multiseg.files.write_bytes`. Raises ImageError if the file cannot be written,
    SettingsError for ``show_input`` of an array.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        _check_pictures(show_input, f"{path}: is an array")
        data = io.BytesIO()
        np.save(data, output.array)
        return _write(path, data.getvalue(), sync_folder)
    if output.labels is not None and not show_input and (kind := format_of(path)) not in _CLASS_FORMATS:
        raise ImageError(f"{path}: {kind} does not keep class indices; name it .png")
    return _write(path, encoded(_beside(output) if show_input else output.image, path), sync_folder)


def save_overlay(output: Output, path: str | Path, opacity: float = 0.5, sync_folder: bool = True) -> Path:
    """Write the input with the colours of the classes over it, beside the output's ``path``; return its path.

    See :meth:`multiseg.inference.output.Output.overlay`. Raises ImageError also if the file cannot be written.
    """
    path = Path(path)
    path = path.with_name(f"{path.stem}-overlay.png")
    return _write(path, encoded(output.overlay(opacity), path), sync_folder)


def _check_pictures(show_input: bool, instead: str) -> None:
    """Raise SettingsError if the input is to be shown beside an output that is no picture; ``instead`` says what is written."""
    if show_input:
        raise SettingsError(f"{instead}, and {setting('show_input', True)} is for pictures; leave out one of them")


def _write(path: Path, content: bytes, sync_folder: bool) -> Path:
    with _image_errors(path):
        make_folder(path.parent)
        write_bytes(path, content, sync_folder=sync_folder)
    return path


@contextmanager
def _image_errors(path: Path) -> Iterator[None]:
    """Raise ImageError for a path that cannot be written, or cannot be a file."""
    try:
        yield
    except SettingsError as error:
        raise ImageError(error) from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {error.strerror or error}") from error


def save_as(output: Output, path: Path, format: Format | None, show_input: bool = False) -> Path:
    """Write one output to ``path`` in a format of :func:`writing`; None: by the path's extension, as in :func:`save`.

    Raises SettingsError for a path whose extension is one of another format, and for ``show_input`` of what is no picture.
    """
    if format == "lmdb":
        _check_pictures(show_input, f"{path}: is a dataset of inputs and outputs")
        with _dataset(path) as write:
            return write(path.name, output)
    suffix = path.suffix.lower()
    expected = {"npy": ".npy", "png": ".png", None: suffix}.get(format)
    if expected is None or (suffix and suffix != expected):
        raise SettingsError(
            f"{path}: does not agree with {setting('format', format)}; name it {path.with_suffix(f'.{format}')}"
        )
    return save(output, path if path.suffix else path.with_suffix(f".{format or 'png'}"), show_input)


@contextmanager
def writing(
    folder: str | Path, format: Format, show_input: bool = False, overlay: float | None = None
) -> Iterator[Write]:
    """Yield a function that writes an output under a name and returns its path.

    With the opacity ``overlay`` each picture or array has an overlay beside it, see :func:`save_overlay`.
    ``png`` and ``npy``: one file per output in ``folder``; instead of pictures, outputs that score the classes of images are
    listed in ``predictions.csv``: the image, and the best classes with their scores. ``lmdb``: ``folder`` becomes a dataset whose
    features are the inputs and whose labels are the pictures of the outputs, in the order of writing; it must not exist, and is
    created when the block succeeds; classes of pixels are labels of the kind ``classes``. Raises SettingsError for another
    format and for ``show_input`` of one that has no pictures, DatasetError or ImageError if it cannot be written, ImageError for
    an overlay of an output that has none.
    """
    folder = Path(folder)
    if format == "npy":
        _check_pictures(show_input, f"{setting('format', format)}: writes arrays")
    if format == "lmdb":
        _check_pictures(show_input, f"{setting('format', format)}: writes a dataset of inputs and outputs")
        with _dataset(folder) as write_pair:
            yield write_pair
        return
    if format not in ("png", "npy"):
        raise SettingsError(f"{setting('format', format)}: choose one of png, npy, lmdb")
    with _image_errors(folder):
        make_folder(folder)
    predictions: list[str] = []

    def write(name: str, output: Output) -> Path:
        if not output.classifies or format == "npy":
            path = save(output, folder / f"{name}.{format}", show_input, sync_folder=False)
            if overlay is not None:
                save_overlay(output, path, overlay, sync_folder=False)
            return path
        _check_pictures(show_input, f"{folder / PREDICTIONS}: lists the classes of images")
        if overlay is not None:
            output.overlay(overlay)  # raises ImageError: there is none
        text = io.StringIO()
        source = name if output.source is None else str(output.source)
        csv.writer(text, lineterminator="\n").writerow([source, *(part for pair in output.best() for part in pair)])
        predictions.append(text.getvalue())
        return folder / PREDICTIONS

    yield write
    if predictions:
        places = max(line.count(",") for line in predictions) // 2
        head = ",".join(["image", *(f"class_{place + 1},score_{place + 1}" for place in range(places))])
        with _image_errors(folder / PREDICTIONS):
            write_text(folder / PREDICTIONS, f"{head}\n{''.join(predictions)}", sync_folder=False)
    with _image_errors(folder):
        sync_one(folder)


@contextmanager
def _dataset(folder: Path) -> Iterator[Write]:
    shapes: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    deep: set[bool] = set()
    kind = Labels()
    total: Sum | None = None
    with staged_folder(folder) as staging:
        with ExitStack() as stack:
            features, labels = (
                stack.enter_context(RecordWriter(staging / TRAIN / name)) for name in (FEATURES, LABELS)
            )

            def write(name: str, output: Output) -> Path:
                nonlocal total, kind
                kind = output.labels or kind
                label = image_to_array(output.image)
                shapes.add((output.input.shape, label.shape))
                deep.add(output.input.dtype != np.uint8)
                if len({shape for shape, _ in shapes}) > 1 or True in deep:
                    total = None
                elif total is None and not features.count:
                    total = Sum(output.input.shape)  # type: ignore[arg-type]
                if total is not None:
                    total.add(output.input)
                if output.input.dtype == np.uint8:
                    png = encode_image(output.input, "png")
                    features.write(encoded_datum(png, output.input.shape))  # type: ignore[arg-type]
                else:
                    features.write(values_datum(output.input))
                labels.write(raw_datum(label))
                return folder

            yield write
        if not features.count:
            raise DatasetError(f"{folder}: no output came, so there is nothing to make a dataset of")
        _describe(staging, features, labels, shapes, total, kind)


def _describe(
    staging: Path,
    features: RecordWriter,
    labels: RecordWriter,
    shapes: set[tuple[tuple[int, ...], tuple[int, ...]]],
    total: Sum | None,
    kind: Labels,
) -> None:
    mixed = len(shapes) > 1
    shape, label_shape = next(iter(shapes)) if len(shapes) == 1 else (None, None)
    if total is not None and features.count:
        mean = np.around(total.take() / features.count).astype(np.uint8)
        (staging / MEAN).write_bytes(mean_blob(mean))
    elif shape is not None:  # values of more than 8 bits
        (staging / MEAN).write_bytes(mean_blob(mean_of_records(features.path)))
    hashes = {f"{TRAIN}/{each.path.name}": each.digest.hexdigest() for each in (features, labels)}
    content: dict[str, Any] = {
        "mixed_sizes": mixed,
        "feature_encoding": "png",
        "label_encoding": "none",
        **({"labels": kind.to_json()} if kind.kind == CLASSES else {}),
        "train": {"count": features.count, "shape": shape, "label_shape": label_shape},
        "val": {"count": 0, "shape": shape, "label_shape": label_shape},
        "databases": hashes,
        "content_hash": combined_hash(hashes),
    }
    with Finishing(concurrent=False) as finishing:
        finishing.add(staging / TRAIN)
        write_description(staging, content, finishing.sums(staging))


def _beside(output: Output) -> Image.Image:
    """Return one picture of input and output, separated by a line."""
    left, right = output.input_image, output.image
    mode = "L" if left.mode == right.mode == "L" else "RGB"
    both = Image.new(mode, (left.width + 1 + right.width, max(left.height, right.height)), "grey")
    both.paste(left.convert(mode), (0, 0))
    both.paste(right.convert(mode), (left.width + 1, 0))
    return both
