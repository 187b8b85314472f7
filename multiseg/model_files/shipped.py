"""The networks that can be chosen by name: one table. Their files are in the package ``multiseg_models``.

Each network is described by several files, one for each format. The number of classes is one number in each file, marked by
the comment "number of classes"; :func:`file_of` returns a copy with another number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from multiseg import backend as registry
from multiseg.backend import Backend, package_folder
from multiseg.errors import ModelError, SettingsError, setting, show_as
from multiseg.files import read_text, write_text
from multiseg.files.scratch import folder_until_the_end
from multiseg.model_files.kinds import kind_of
from multiseg.network import CLASSES, IMAGES, LabelKind

PACKAGE = "multiseg_models"
Shape = tuple[int, int, int]

# the number, or the word for "as many as the image has channels", and the comment that marks it
MARKED = re.compile(r"\b(\d+|None|nil)(?=[ ,;]*(?:#|--) number of classes)")


@dataclass(frozen=True)
class ShippedModel:
    """A network that can be chosen by name.

    ``files`` describe it in the formats of several backends; a backend uses the first of its own format. ``labels`` is the kind
    that the loss in the files accepts. ``input_shape`` (C, H, W) and ``classes`` are those for which ``multiseg models`` counts
    parameters and multiply-adds by default.
    """

    name: str
    title: str
    labels: LabelKind
    input_shape: Shape
    classes: int

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files of the network: prototxt, PyTorch, Torch7, TensorFlow."""
        stem = self.name.replace("-", "_")
        names = (f"{stem}.prototxt", f"{stem}_torch.py", f"{stem}.lua", f"{stem}_tensorflow.py")
        return tuple(package_folder(PACKAGE) / name for name in names)


MODELS = {
    model.name: model
    for model in (
        ShippedModel(
            "fcn",
            "the DIGITS tutorial's fully convolutional network: image to image, stride 16",
            IMAGES,
            (1, 32, 32),
            1,
        ),
        ShippedModel(
            "fcn-alexnet",
            "FCN-AlexNet: AlexNet's layers as convolutions, fixed bilinear upsampling by 32; start from trained weights",
            CLASSES,
            (3, 180, 240),
            21,
        ),
        ShippedModel(
            "unet", "U-Net with four poolings, 8 to 128 filters and batch normalization", CLASSES, (3, 180, 240), 21
        ),
    )
}


def find(model: str | Path | None) -> ShippedModel | None:
    """Return the network that is called ``model``; None if it is no name of one, but e.g. a path."""
    return None if model is None else MODELS.get(str(model))


def of_file(name: str) -> ShippedModel | None:
    """Return the network that has a file called ``name``, None if there is none."""
    return next((model for model in MODELS.values() if name in [file.name for file in model.files]), None)


def get(name: str) -> ShippedModel:
    """Return the network called ``name``. Raises ModelError that lists the names if there is none."""
    if name not in MODELS:
        raise ModelError(f"no network is called {name!r}; known are: {', '.join(MODELS)}")
    return MODELS[name]


def path_of(
    model: str | Path, backend: Backend | None = None, classes: int | None = None, channels: int | None = None
) -> Path:
    """Return the path of a network file: ``model``, or if it is a name of :data:`MODELS` the network's file.

    Of the network's files it is the first that ``backend`` loads, else (also without a backend) the first. The file has
    ``classes`` outputs, by default as many as the table states; ``channels`` are those of the images.
    """
    named = find(model)
    return Path(model) if named is None else file_of(named, backend, classes, channels)


def file_of(
    model: ShippedModel, backend: Backend | None = None, classes: int | None = None, channels: int | None = None
) -> Path:
    """Return a network's file for a backend and a number of classes; see :func:`path_of`."""
    own = (file for file in model.files if backend is not None and kind_of(file, "network")[0].name == backend.name)
    return with_classes(next(own, model.files[0]), classes, channels)


def of_default(backend: Backend, classes: int | None, channels: int | None) -> Path:
    """Return the network file of jobs that do not specify one, with ``classes`` outputs if its file is in the table."""
    path = backend.default_model_path
    shipped = any(path in model.files for model in MODELS.values())
    return with_classes(path, classes, channels) if shipped else path


def with_classes(path: Path, classes: int | None, channels: int | None = None) -> Path:
    """Return a file of the table with ``classes`` outputs: itself, or a copy that exists until this process ends."""
    if classes is None:
        return path
    stated = {match[1] for match in MARKED.finditer(read_text(path))}
    default = {int(word) if word.isdigit() else channels for word in stated}
    return path if default == {classes} else _copy(path, classes)


def text_with_classes(text: str, classes: int) -> str:
    """Return the text of a file of the table with another number of classes."""
    return MARKED.sub(str(classes), text)


@cache
def _copy(path: Path, classes: int) -> Path:
    folder = folder_until_the_end(path.stem)
    write_text(folder / path.name, text_with_classes(read_text(path), classes))
    named = of_file(path.name)
    if named is not None:
        show_as(folder / path.name, named.name)
    return folder / path.name


def write(model: ShippedModel, out: Path, backend: str | None = None, classes: int | None = None) -> Path:
    """Write a copy of a network's file, of the format of ``backend``, else of the extension of ``out``; return ``out``.

    Raises SettingsError if the network has no such file, or several.
    """
    suffixes = [file for file in model.files if file.suffix == out.suffix]
    if backend is not None:
        owner = registry.get(backend).name
        files = [file for file in model.files if kind_of(file, "network")[0].name == owner]
        files = [file for file in files if file in suffixes] or files[:1]
    else:
        files = suffixes
    if len(files) != 1:
        backends = ", ".join(f"{kind_of(file, 'network')[0].name} ({file.suffix})" for file in model.files)
        raise SettingsError(
            f"{setting('output', str(out))}: specify which file of {model.name} with {setting('backend')} and the extension: "
            f"{backends}"
        )
    text = read_text(files[0])
    write_text(out, text if classes is None else text_with_classes(text, classes))
    return out
