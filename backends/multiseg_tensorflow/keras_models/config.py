"""Check the configuration of a Keras model before Keras sees it, and reduce it to what its computation depends on.

A configuration names classes and functions, which Keras imports and calls. Here it may name only layers and tensor operations of
Keras that compute; all else is refused by name. Regularisers and constraints are left out, as the solver of a job decides how
weights change, and so are data types: multiseg computes in float32. Weights are initialised by zeros, as the file has all values.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiseg.errors import ModelError

Config = dict[str, Any]

MODELS = ("Functional", "Model", "Sequential")
LAYERS = frozenset((
    "InputLayer", "Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D", "Dense", "EinsumDense",
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization", "RMSNormalization", "Normalization",
    "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "UpSampling2D",
    "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "ActivityRegularization",
    "Dropout", "SpatialDropout2D", "GaussianDropout", "AlphaDropout", "GaussianNoise",
    "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot",
    "ZeroPadding2D", "Cropping2D", "CenterCrop", "Rescaling", "Resizing", "Reshape", "Permute", "Flatten", "RepeatVector",
    "Identity", "Attention", "AdditiveAttention", "MultiHeadAttention",
))  # fmt: skip
OLD_NAMES = {"BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization"}
CODE = (
    "Lambda",
    "__lambda__",
    "TFOpLambda",
    "SlicingOpLambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
)
OPERATIONS = re.compile(r"keras\.src\.ops\.(numpy|nn|math|image|core)")
NOT_OPERATIONS = (
    "Map",
    "Scan",
    "AssociativeScan",
    "Cond",
    "Switch",
    "WhileLoop",
    "ForiLoop",
    "Vectorize",
)  # call functions
VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__")  # in the arguments of a call
INITIALISER = re.compile(r"(?:\w+_)?initializer")
LEFT_OUT = re.compile(r"(?:\w+_)?(?:regularizer|constraint)")
# of layers of Keras 2, without effect here
OLD_ARGUMENTS = ("noise_shape", "robust_masking", "softmax_robust_masking", "dynamic")
NEUTRAL: Config = {"dtype": None, "groups": 1, "fused": None, "time_major": False, "sparse": False, "ragged": False}
NOT_ACTIVATIONS = ("get", "serialize", "deserialize")
MAX_DEPTH = 64


def reduced(path: Path, config: Any, version: str, keras: Any) -> Config:
    """Return the class name and configuration of a model, checked and reduced.

    ``version`` is that of Keras which wrote the model, and ``keras`` the module here, which is asked for the arguments of layers
    and the names of activations. Raises ModelError that names the layer or function that is refused, or a version before 2.
    """
    if version.startswith(("0.", "1.")):
        raise ModelError(
            f"{path}: was written by Keras {version[:20]}, whose layers have other names and arguments; multiseg reads models of "
            "Keras 2 and 3. Load it in Keras 2.3 and save it again"
        )
    if not isinstance(config, dict) or config.get("class_name") not in MODELS:
        name = config.get("class_name") if isinstance(config, dict) else config
        raise ModelError(
            f"{path}: its model is an object of the class {str(name)[:60]!r}, whose Python code is not in the file; multiseg "
            "reads Functional and Sequential models. Export it in its own program, with model.export(FOLDER), and use that folder"
        )
    return _Checker(path, keras).model(config, 0)


def input_layers(config: Config) -> list[Config]:
    """Return the configurations of the input layers of a reduced model, without those of models within it."""
    return [layer["config"] for layer in config["config"]["layers"] if layer["class_name"] == "InputLayer"]


class _Checker:
    """Checks and reduces the configurations of one file."""

    def __init__(self, path: Path, keras: Any) -> None:
        self._path = path
        self._keras = keras

    def model(self, entry: Mapping[str, Any], depth: int) -> Config:
        """Return a model's entry, with the entries of its layers."""
        config = entry.get("config")
        if isinstance(config, list):  # Sequential models before Keras 2.2.3
            config = {"name": "sequential", "layers": config}
        if not isinstance(config, dict) or not isinstance(config.get("layers"), list) or depth > MAX_DEPTH:
            raise ModelError(f"{self._path}: the configuration of its model is damaged: it has no list of layers")
        layers = [self._layer(layer, depth) for layer in config["layers"]]
        _count_calls_from_0(layers)
        keys = ("name", "trainable", "input_layers", "output_layers", "build_input_shape")
        kept = {key: config[key] for key in keys if key in config}
        if entry["class_name"] == "Sequential":
            layers = _with_input(layers)
            kept.setdefault("name", "sequential")
        return {**_identity(entry), "config": {**kept, "layers": layers}}

    def _layer(self, entry: Any, depth: int) -> Config:
        """Return the entry of a layer, an operation or a model within a model."""
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            raise ModelError(f"{self._path}: the configuration of its model is damaged: a layer has no class_name")
        config = entry.get("config")
        name = entry.get("name") or (config.get("name") if isinstance(config, dict) else None) or "?"
        if not isinstance(name, str):
            raise ModelError(f"{self._path}: the configuration of its model is damaged: a layer's name is {name!r}")
        class_name = str(OLD_NAMES.get(entry["class_name"], entry["class_name"]))
        calls = {"inbound_nodes": self._arguments(entry["inbound_nodes"], name)} if "inbound_nodes" in entry else {}
        calls["name"] = name
        if class_name in MODELS:
            return {**self.model(entry, depth + 1), **calls}
        module = entry.get("module")
        is_operation = isinstance(module, str) and OPERATIONS.fullmatch(module) and class_name not in NOT_OPERATIONS
        if not isinstance(config, dict) or not (is_operation or self._is_layer(class_name, entry)):
            raise ModelError(self._refusal(name, class_name, entry))
        identity = {
            "class_name": class_name,
            **({"module": module, "registered_name": class_name} if is_operation else {}),
        }
        if "module" in entry and not is_operation:
            identity.update(module="keras.layers", registered_name=None)
        reduced = {key: self._value(key, value, name) for key, value in config.items() if not LEFT_OUT.fullmatch(key)}
        arguments = inspect.signature(getattr(self._keras.layers, class_name, object)).parameters
        takes_more = any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())
        for key in [key for key in reduced if key not in arguments]:
            # Keras 2 states arguments that a layer does not have
            if INITIALISER.fullmatch(key) or key in OLD_ARGUMENTS or (key == "trainable" and not takes_more):
                del reduced[key]
        for key, neutral in NEUTRAL.items():
            if key in reduced and (key == "dtype" or neutral is None or reduced[key] == neutral):
                del reduced[key]
        if "batch_input_shape" in reduced and class_name == "InputLayer":
            reduced["batch_shape"] = reduced.pop("batch_input_shape")
        self._check_order(name, reduced)
        return {**identity, "config": reduced, **calls}

    def _is_layer(self, class_name: str, entry: Mapping[str, Any]) -> bool:
        module, registered = entry.get("module", "keras"), entry.get("registered_name")
        known = isinstance(module, str) and re.fullmatch(r"keras(\.\w+)*", module) is not None
        return class_name in LAYERS and known and registered in (None, class_name)

    def _refusal(self, name: str, class_name: str, entry: Mapping[str, Any]) -> str:
        """Return the message about a layer that is not loaded."""
        if class_name in CODE:
            reason = "which runs Python code or other programs of the file; multiseg does not run code of model files"
        elif entry.get("registered_name") not in (None, class_name) or not self._is_keras(entry):
            reason = "a class of the program that wrote the file, whose code is not in it"
        else:
            reason = "which is not among the layers for images that multiseg reads"
        return (
            f"{self._path}: its layer {name!r} is of the class {class_name[:60]!r}, {reason}. Replace the layer, or export the "
            "model in its own program, with model.export(FOLDER), and use that folder"
        )

    def _is_keras(self, entry: Mapping[str, Any]) -> bool:
        return str(entry.get("module", "keras")).partition(".")[0] == "keras"

    def _value(self, key: str, value: Any, name: str) -> Any:
        """Return a value of a layer's configuration. Raise ModelError if it names a class or function that is not Keras's."""
        if key == "activation":
            return self._activation(value, name)
        if key == "dtype":
            return None
        if INITIALISER.fullmatch(key):
            return "zeros"
        return self._arguments(value, name)

    def _activation(self, value: Any, name: str) -> Any:
        """Return the name of an activation function, or the entry of a layer that is used as one."""
        if isinstance(value, dict) and value.get("class_name") == "function" and value.get("module") == "builtins":
            value = value.get("config")
        if isinstance(value, dict) and value.get("class_name") != "function":
            entry = {**value, "name": f"{name}'s activation"}
            return {key: part for key, part in self._layer(entry, 0).items() if key not in ("name", "inbound_nodes")}
        is_name = isinstance(value, str) and re.fullmatch(r"[a-z]\w*", value) and value not in NOT_ACTIVATIONS
        if value is None or (is_name and hasattr(self._keras.activations, value)):
            return value
        function = value.get("config") if isinstance(value, dict) else value
        raise ModelError(
            f"{self._path}: the activation {str(function)[:60]!r} of its layer {name!r} is not one of Keras, but a function of "
            "the program that wrote the file; export the model in that program, with model.export(FOLDER), and use that folder"
        )

    def _arguments(self, value: Any, name: str, depth: int = 0) -> Any:
        """Return a value of plain data and tensors. Raise ModelError if it names any other class."""
        if depth > MAX_DEPTH:
            raise ModelError(
                f"{self._path}: the configuration of its layer {name!r} is nested too deeply; it is damaged"
            )
        if isinstance(value, list):
            return [self._arguments(part, name, depth + 1) for part in value]
        if isinstance(value, dict):
            class_name = value.get("class_name")
            if "class_name" in value and class_name not in VALUES:
                raise ModelError(
                    self._refusal(name, str(value.get("config") if class_name == "function" else class_name), {})
                )
            return {key: self._arguments(part, name, depth + 1) for key, part in value.items()}
        return value

    def _check_order(self, name: str, config: Mapping[str, Any]) -> None:
        if config.get("data_format") == "channels_first":
            raise ModelError(
                f"{self._path}: its layer {name!r} has data_format='channels_first', which TensorFlow computes on GPUs only; "
                "build the model again with keras.config.set_image_data_format('channels_last') and load its weights into it "
                "(the kernels have the same layout), then save that"
            )


def _identity(entry: Mapping[str, Any]) -> Config:
    """Return what names the class of a model; files before Keras 3 name no module."""
    name = "Sequential" if entry["class_name"] == "Sequential" else "Functional"
    if "module" not in entry:
        return {"class_name": name}
    module = f"keras.src.models.{name.lower()}"
    return {"class_name": name, "module": module, "registered_name": name}


def _count_calls_from_0(layers: list[Config]) -> None:
    """Change the numbers of calls of models within a model, in place: Keras 2 counts from 1, as each is called for itself first.

    Its calls are lists (layer, call, output, arguments); those of Keras 3 are not changed.
    """
    calls = [
        tensor
        for layer in layers
        for node in layer.get("inbound_nodes", ())
        if isinstance(node, list)
        for tensor in node
        if isinstance(tensor, list) and len(tensor) >= 3 and isinstance(tensor[1], int)
    ]
    for name in [layer["name"] for layer in layers if layer["class_name"] in MODELS]:
        of_model = [call for call in calls if call[0] == name]
        first = min((call[1] for call in of_model), default=0)
        for call in of_model:
            call[1] -= first


def _with_input(layers: list[Config]) -> list[Config]:
    """Return the layers of a Sequential model with an input layer, whose shape older files have in the first layer."""
    if not layers or layers[0]["class_name"] == "InputLayer":
        return layers
    shape = layers[0]["config"].pop("batch_input_shape", None)
    if shape is None:
        return layers
    entry: Config = {"class_name": "InputLayer", "config": {"batch_shape": shape, "name": f"{layers[0]['name']}_input"}}
    if "module" in layers[0]:
        entry.update(module="keras.layers", registered_name=None)
    return [{**entry, "name": entry["config"]["name"]}, *layers]
