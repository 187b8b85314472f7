"""Read Caffe network files, and select the layers of a state.

States (phase and stage) are those of DIGITS: TRAIN + "train", TEST + "val", TEST + "deploy".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from google.protobuf import text_format

from multiseg.errors import ModelError, setting
from multiseg.files import read_text
from multiseg.worker import choice
from multiseg_caffe import cutting, forks, open_classes, proto
from multiseg_caffe.describing.placing import near
from multiseg_caffe.upgrade import upgrade

STATES = {
    "train": (proto.TRAIN, "train"),
    "val": (proto.TEST, "val"),
    "deploy": (proto.TEST, "deploy"),
}
# fields of a solver file that a network file does not have
SOLVER = re.compile(
    r"^[ \t]*(net|train_net|base_lr|lr_policy|max_iter|solver_mode|solver_type)[ \t]*:[ \t]*(\S+)", re.MULTILINE
)
# fields of the layers of object detectors (Faster R-CNN, R-FCN, SSD), which need boxes
DETECTION = {
    "roi_pooling_param": "ROIPooling", "psroi_pooling_param": "PSROIPooling", "roi_align_param": "ROIAlign",
    "prior_box_param": "PriorBox", "detection_output_param": "DetectionOutput", "multibox_loss_param": "MultiBoxLoss",
    "detection_evaluate_param": "DetectionEvaluate", "annotated_data_param": "AnnotatedData",
    "box_annotator_ohem_param": "BoxAnnotatorOHEM", "region_loss_param": "RegionLoss", "proposal_param": "Proposal",
}  # fmt: skip
MOST = 10_000  # layers, and inputs, of a file; some steps take longer than in proportion to their number
LAYER = re.compile(r"^[ \t]*layers?\s*\{", re.MULTILINE)


def read(path: str, complete: bool = True) -> Any:
    """Return the NetParameter in a file, upgraded to Caffe's current syntax, with the number of classes that was chosen for it.

    Layers that the chosen outputs do not need are not read (multiseg_caffe.cutting).

    Raises ModelError with line and column if the file cannot be parsed, for a file without layers and, unless ``complete`` is
    false, for one whose number of classes is unknown.
    """
    chosen = choice.read(path)
    path = str(chosen.file)
    try:
        text = read_text(path)
    except UnicodeDecodeError:
        raise ModelError(f"{path}: is not a prototxt: it is not text in UTF-8") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if chosen.outputs:
        text = cutting.cut(text, path, chosen.outputs)
    net = proto.NetParameter()
    try:
        text_format.Parse(text, net)
    except text_format.ParseError as error:
        _reject_solver(path, text)
        raise ModelError(f"{path}:{_parse_message(error, text)}") from error
    if not net.layer and not net.layers:
        _reject_solver(path, text)
        raise ModelError(f"{path}: has no `layer {{ ... }}`")
    for what, count in (("layers", len(net.layer) + len(net.layers)), ("inputs", len(net.input))):
        if count > MOST:
            raise ModelError(f"{path}: has {count} {what}, more than {MOST}, and is not read")
    upgrade(net, path)
    forks.replace(net, path)
    if complete and chosen.classes is not None:
        open_classes.fill(net, chosen.classes)
    elif complete:
        open_classes.check(net, path)
    return net


def _reject_solver(path: str, text: str) -> None:
    """Raise ModelError if the text is that of a solver file."""
    fields = {} if LAYER.search(text) else dict(SOLVER.findall(text))
    if fields:
        network = fields.get("net") or fields.get("train_net")
        raise ModelError(
            f"{path}: is a Caffe solver; specify the file of the network that it trains{f', {network}' if network else ''}"
        )


def _parse_message(error: text_format.ParseError, text: str) -> str:
    """Return "line:column: message", with the layer, and similar names for an unknown one."""
    line, column = error.GetLine(), error.GetColumn()
    message = re.sub(r"^\d+:\d+ : ", "", str(error)).strip()
    field = re.search(r'Message type "caffe\.([\w.]+)" has no field named "(\w+)"', message)
    value = re.search(r'Enum type "(caffe\.[\w.]+)" has no value named (\w+)', message)
    if field:
        fields = proto.pool.FindMessageTypeByName(f"caffe.{field[1]}").fields_by_name
        similar = near(field[2], fields)
        layer = cutting.layer_at(text, line, column) if line and column else None
        message = f"{field[1]} has no field {field[2]!r}{similar}"
        unknown = DETECTION if field[2] in DETECTION else (field[2],)
        cut = f"cut the network before it, with {setting('outputs', cutting.example_before(text, unknown) or 'NAME')}"
        if field[2] in DETECTION:
            kind = DETECTION[field[2]]
            message = f"{field[2]} is of a layer of object detection ({kind}), which multiseg does not support; {cut}"
        elif layer and field[2] in layer.spans and not similar.startswith("; similar"):
            message = (
                f"layer {layer.name!r} ({layer.type}): {field[2]!r} is of a layer that multiseg does not know; {cut}"
            )
        elif layer and layer.name:
            message = f"layer {layer.name!r} ({layer.type}): {message}"
    elif value:
        values = proto.pool.FindEnumTypeByName(value[1]).values_by_name
        message = f"no value {value[2]!r}{near(value[2], values)}"
    position = f"{line}:{column}: " if line is not None else " "
    return f"{position}{message}"


def filtered(net: Any, state: str, path: str) -> Any:
    """Return a network of the layers that Caffe keeps in this state, without their rules (src/caffe/net.cpp, FilterNet)."""
    phase, stage = STATES[state]

    def meets(rule: Any) -> bool:
        return (
            (not rule.HasField("phase") or rule.phase == phase)
            and (not rule.HasField("min_level") or rule.min_level <= 0)
            and (not rule.HasField("max_level") or rule.max_level >= 0)
            and all(required == stage for required in rule.stage)
            and stage not in rule.not_stage
        )

    kept = proto.NetParameter(name=net.name)
    for layer in net.layer:
        if layer.include and layer.exclude:
            raise ModelError(
                f"{path}: layer {layer.name!r}: has both include and exclude; Caffe accepts only one of them"
            )
        included = any(map(meets, layer.include)) if layer.include else not any(map(meets, layer.exclude))
        if included:
            copy = kept.layer.add()
            copy.CopyFrom(layer)
            copy.ClearField("include")
            copy.ClearField("exclude")
    return kept


def outputs(net: Any) -> list[str]:
    """Return the names of the blobs that no layer consumes, in order."""
    tops = dict.fromkeys(top for layer in net.layer for top in layer.top)
    for layer in net.layer:
        for bottom in layer.bottom:
            if bottom not in layer.top:
                tops.pop(bottom, None)
    return list(tops)


def of_layers(name: str, layers: Iterable[Any]) -> Any:
    """Return a network of copies of these layers."""
    net = proto.NetParameter(name=name)
    net.layer.extend(layers)
    return net
