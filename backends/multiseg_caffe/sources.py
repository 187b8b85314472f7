"""A network's data layers, which are replaced by inputs for multiseg's own batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from multiseg.errors import ModelError, setting
from multiseg_caffe import open_classes, prototxt
from multiseg_caffe.describing.shapes import READERS

# roles: names of the input blobs that multiseg fills
DATA, LABEL = "data", "label"
MORE = "more"  # the role of the inputs of a deploy network after the first
TRANSFORMERS = ("Data", "ImageData", "MemoryData", "WindowData")
BATCHES = ("data_param", "image_data_param", "hdf5_data_param", "memory_data_param", "window_data_param")


@dataclass(frozen=True)
class Source:
    """One top of a data layer: its role (``DATA``, ``LABEL`` or ``MORE``), and its shape, None if the file has none."""

    top: str
    role: str
    layer: Any
    shape: tuple[int, ...] | None

    @property
    def scale(self) -> float:
        """The factor by which Caffe multiplies the images that it reads. Only a layer's first top contains images."""
        transforms = self.layer.type in TRANSFORMERS and self.layer.top[0] == self.top
        return float(self.layer.transform_param.scale) if transforms else 1.0


def find(net: Any, path: str) -> dict[str, Source]:
    """Return the tops of data layers by name. Their roles follow from the names data and label, of the top or the layer.

    Inputs of type Input after the first have the role ``MORE``; those that no layer reads are left out. Raises ModelError if a
    data layer's top has no role, and for several data layers of images.
    """
    read = {bottom for layer in net.layer for bottom in layer.bottom}
    inputs: dict[str, Source] = {}
    for layer in net.layer:
        if layer.bottom or layer.type not in (*READERS, "Input", "DummyData", "Python"):
            continue
        for index, top in enumerate(layer.top):
            role = _role(layer, index)
            if layer.type == "Input" and role == DATA and top not in read and len(layer.top) > 1:
                continue
            if role is None and layer.type in ("DummyData", "Python"):
                continue  # part of the network: does not read a dataset
            if role is None:
                raise ModelError(
                    f"{path}: layer {layer.name!r}: top {top!r} is unknown; name the tops of data layers data and label"
                )
            other = next((name for name, source in inputs.items() if source.role == role and name != top), None)
            if other is not None and layer.type == "Input" and role == DATA:
                role = MORE
            elif other is not None:
                raise ModelError(
                    f"{path}: has several inputs, {other!r} and {top!r}; multiseg trains networks with one input"
                )
            inputs[top] = Source(top, role, layer, _shape(layer, index))
    return inputs


def _role(layer: Any, index: int) -> str | None:
    tops = list(layer.top)
    if tops[index] in (DATA, LABEL):
        return str(tops[index])
    if index == 0 and layer.name in (DATA, LABEL):
        return str(layer.name)
    if layer.type == "Input":
        return DATA
    if index == 1 and len(tops) == 2 and _role(layer, 0) == DATA:
        return LABEL
    return None


def _shape(layer: Any, index: int) -> tuple[int, ...] | None:
    if layer.type == "Input" and layer.input_param.shape:
        shapes = layer.input_param.shape
        return tuple(shapes[index if index < len(shapes) else 0].dim)
    p = layer.memory_data_param
    if layer.type == "MemoryData" and index == 0 and p.channels and p.height and p.width:
        return (p.batch_size, p.channels, p.height, p.width)
    return None


def batch_size(net: Any, state: str, path: str) -> int | None:
    """Return the batch size of the file's data layers in this state; None if they specify none."""
    layers = [layer for layer in prototxt.filtered(net, state, path).layer if layer.type in READERS]
    sizes = [getattr(layer, key).batch_size for layer in layers for key in BATCHES if layer.HasField(key)]
    return next((size for size in sizes if size), None)


def label_scale(net: Any, path: str) -> float:
    """Return the factor by which the data layers of a network multiply its labels."""
    try:
        return next((source.scale for source in find(net, path).values() if source.role == LABEL), 1.0)
    except ModelError:  # training reports this; a description for prediction does not need data layers
        return 1.0


def image_scale(file: Any, path: str) -> float:
    """Return the factor by which a file's data layers multiply images, in every state.

    What only the training state says applies to the others as well. Raises ModelError if the states differ.
    """
    return float(_of_all_states(file, path, "scale") or 1.0)


def file_mean(path: str) -> list[float] | None:
    """Return the ``mean_value`` of a file's data layers, in Caffe's order of channels (BGR); None if it has none.

    What only the training state says applies to the others as well. Raises ModelError if the states differ.
    """
    values = _of_all_states(prototxt.read(path, complete=False), path, "mean_value")
    return list(values) if values else None


def leaves_classes_open(path: str) -> bool:
    """Return whether a network file leaves the number of outputs of a last layer open, as DIGITS' networks do."""
    try:
        return bool(open_classes.open_layers(prototxt.read(path, complete=False)))
    except ModelError:  # loading the file reports this
        return False


def file_cropping(path: str) -> dict[str, Any]:
    """Return the ``crop_size`` of a file's data layers in training (``crop``) and in validation (``val_crop``), 0 without one.

    ``mirror`` states whether images are mirrored at random in training; that of phase TEST is not used. Raises ModelError if the
    layers of images and labels state different sizes.
    """
    file = prototxt.read(path, complete=False)
    crop, mirror = _crop_of(file, "train", path)
    return {"crop": crop, "val_crop": _crop_of(file, "val", path)[0], "mirror": mirror}


def _crop_of(file: Any, state: str, path: str) -> tuple[int, bool]:
    """Return the crop_size of the data layers of a state, 0 without one, and whether they mirror images."""
    try:
        found = find(prototxt.filtered(file, state, path), path).values()
    except ModelError:  # of a state that is not used; training and prediction report it
        return 0, False
    layers = {source.layer.name: source for source in found if source.layer.type in TRANSFORMERS}.values()
    stated = {source.role: source.layer for source in layers if source.layer.top[0] == source.top}
    images, labels = stated.get(DATA), stated.get(LABEL)
    size = int(images.transform_param.crop_size) if images is not None else 0
    if labels is not None and labels.transform_param.crop_size not in (0, size):
        has = f"crop_size: {size}" if size else "no crop_size"
        raise ModelError(
            f"{path}: layer {labels.name!r}: transform_param {{ crop_size: {labels.transform_param.crop_size} }}, but the "
            f"layer of the images has {has}; images and labels get the same crop: state the same crop_size"
        )
    return size, images is not None and bool(images.transform_param.mirror)


def _of_all_states(file: Any, path: str, key: str) -> Any:
    """Return the value of a field of transform_param of the images; None if no state has it."""
    stated: dict[str, Any] = {}
    for state in prototxt.STATES:
        try:
            found = find(prototxt.filtered(file, state, path), path).values()
        except ModelError:  # of a state that is not used; training and prediction report it
            continue
        for source in found:
            if source.role == DATA and source.layer.type in TRANSFORMERS and source.layer.top[0] == source.top:
                parameters = source.layer.transform_param
                present = bool(parameters.mean_value) if key == "mean_value" else parameters.HasField(key)
                value = list(parameters.mean_value) if key == "mean_value" else getattr(parameters, key)
                stated[state] = (source.layer.name, value if present else None)
    training = stated.get("train", ("", None))[1]
    for layer, value in stated.values():
        if value is not None and value != training and not (training is None and key == "scale" and value == 1):
            has = "none" if training is None else _text(training)
            if "train" in stated:
                raise ModelError(
                    f"{path}: layer {layer!r}: transform_param {{ {key}: {_text(value)} }} differs from that of training, {has}; "
                    "state the same for every state, or for training only"
                )
            training = value
    return training


def _text(value: Any) -> str:
    return ", ".join(f"{number:g}" for number in value) if isinstance(value, list) else f"{value:g}"


def scaled(net: Any, blob: str, factor: float) -> None:
    """Insert a layer before all others that multiplies a blob by ``factor``, in place; none if ``factor`` is 1."""
    if factor == 1:
        return
    rest = list(net.layer)
    del net.layer[:]
    layer = net.layer.add(name=f"{blob}_scale", type="Power", bottom=[blob], top=[blob])
    layer.power_param.scale = factor
    net.layer.extend(rest)


def fed(net: Any, path: str, shapes: dict[str, list[int]], scale: float = 1.0) -> Any:
    """Return the network with its data layers replaced by Input layers of these shapes, named data and label.

    The images are multiplied by ``scale``, see :func:`image_scale`.
    Mean, crop and mirroring are applied by multiseg, see :func:`file_mean` and :func:`file_cropping`.
    """
    inputs = find(net, path)
    replaced = {source.layer.name for source in inputs.values()}
    result = prototxt.of_layers(net.name, (layer for layer in net.layer if layer.bottom or layer.name not in replaced))
    if more := [top for top, source in inputs.items() if source.role == MORE]:
        raise several_inputs(path, [next(iter(inputs)), *more])
    names = {top: source.role for top, source in inputs.items()}
    for layer in result.layer:
        for blobs in (layer.bottom, layer.top):
            blobs[:] = [names.get(blob, blob) for blob in blobs]
    for source in inputs.values():
        scaled(result, source.role, scale if source.role == DATA else source.scale)
    rest = list(result.layer)
    del result.layer[:]
    for name, shape in shapes.items():
        layer = result.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
    result.layer.extend(rest)
    return result


def several_inputs(path: str, names: list[str]) -> ModelError:
    """Return the error for training or testing a network with several inputs."""
    return ModelError(
        f"{path}: has {len(names)} inputs ({', '.join(names)}); training and testing want one; cut the network to a layer that "
        f"needs one of them, with {setting('outputs', example='NAME')}"
    )
