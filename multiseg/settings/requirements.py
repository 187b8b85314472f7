"""Requirements on the values of a job's settings: one row per setting, independent of backend and dataset."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from multiseg.dataset import Dataset
from multiseg.dataset.cropping import CENTRE, NONE, read_size
from multiseg.dataset.fitting import OF_DATASET
from multiseg.errors import SettingsError, setting
from multiseg.network import PRECISIONS
from multiseg.schema import TEXT, is_number, is_whole
from multiseg.settings.metrics import SELECTING

RECIPES = ("tutorial", "equal")
SUBTRACT_MEAN = ("pixel", "image", "none")
KEEP = ("last", "best", "all")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Condition:
    """A condition on a value, and the words in which a message requires it."""

    words: str
    holds: Callable[[Any], bool]

    def or_none(self) -> Condition:
        """Return the requirement of a setting that may be left open."""
        return Condition(self.words, lambda value: value is None or self.holds(value))


def one_of(*names: str) -> Condition:
    """Return the requirement that a value is one of these names."""
    return Condition(f"choose one of {', '.join(names)}", lambda value: value in names)


def whole(least: int, of: str = "") -> Condition:
    """Return the requirement that a value is a whole number (``of`` something) from ``least``."""
    return Condition(f"must be a whole number{of} from {least}", lambda value: is_whole(value) and value >= least)


def above_0(more: str = "", most: float = math.inf) -> Condition:
    """Return the requirement that a value is a number above 0, up to ``most``."""
    return Condition(f"must be a number{more}", lambda value: is_number(value) and 0 < value <= most)


def _names_layers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) and name for name in value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(map(is_number, value))


def _are_deviations(value: Any) -> bool:
    return value == OF_DATASET or (_are_numbers(value) and all(number > 0 for number in value))


def _is_crop(value: Any) -> bool:
    try:
        read_size(value)
    except ValueError:
        return False
    return True


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) and TEXT.valid(os.fspath(value))


_NAME = Condition("must be a name, as text", lambda value: isinstance(value, str))
_FLAG = Condition("must be true or false", lambda value: isinstance(value, bool))
_OPTIONS = Condition("must map names of options to values", lambda value: isinstance(value, Mapping))
_LAYERS = Condition("must be a list of names of layers", _names_layers)

# what the other checks of a job, and the reading of its network, rely on
KINDS: dict[str, Condition] = {
    "dataset": Condition(
        "must be a folder, a URL or a Dataset", lambda value: _is_path(value) or isinstance(value, Dataset)
    ),
    "backend": _NAME,
    "model": Condition("must be a file or the name of a network", _is_path).or_none(),
    "model_options": Condition("must be a mapping of names of variables", lambda value: isinstance(value, Mapping)),
    "classes": whole(1).or_none(),
    "outputs": _LAYERS,
    "weights": Condition("must be a run folder or a file of weights", _is_path).or_none(),
    "solver": _NAME,
    "solver_options": _OPTIONS,
    "lr_policy": Condition(
        "must be a name, or a mapping of 'policy' and its parameters", lambda value: isinstance(value, (str, Mapping))
    ).or_none(),
    "augment": _OPTIONS,
}
REQUIREMENTS: dict[str, Condition] = {
    "recipe": one_of(*RECIPES),
    "subtract_mean": one_of(*SUBTRACT_MEAN).or_none(),
    "mean": Condition("must be a list of numbers, one for each channel, colours as B, G, R", _are_numbers).or_none(),
    "divide_std": Condition(
        f"must be {OF_DATASET!r}, or a list of numbers above 0, one for each channel, colours as B, G, R",
        _are_deviations,
    ).or_none(),
    "crop": Condition("must be a number of pixels, or height and width, e.g. 128x160, or 'none'", _is_crop).or_none(),
    "val_crop": one_of(CENTRE, NONE).or_none(),
    "keep": one_of(*KEEP),
    "device": one_of(*DEVICES),
    "lowering": _FLAG,
    "compile": _FLAG,
    "precision": one_of(*PRECISIONS),
    "epochs": whole(1),
    "batch_size": whole(1).or_none(),
    "val_batch_size": whole(1).or_none(),
    "accumulate": whole(1),
    "threads": whole(0),
    "data_workers": whole(0).or_none(),
    "image_cache": whole(0, " of megabytes").or_none(),
    "ignore_index": whole(0).or_none(),
    "seed": Condition("must be 0 to 2**31-1", lambda value: is_whole(value) and 0 <= value < 2**31).or_none(),
    "learning_rate": above_0(" above 0").or_none(),
    "val_interval": above_0(" of epochs above 0, e.g. 0.5"),
    "snapshot_interval": above_0(" of epochs above 0, e.g. 0.5"),
    "metric": one_of(*SELECTING).or_none(),
    "threshold": above_0(" above 0, up to 255", 255).or_none(),
    "patience": whole(1, " of validations").or_none(),
    "min_delta": Condition("must be a number from 0", lambda value: is_number(value) and value >= 0),
    "freeze": _LAYERS,
    "solver_state": Condition("must be true, false, or left out", lambda value: value in (None, False, True)),
}


def problems(job: Any, requirements: Mapping[str, Condition] = REQUIREMENTS) -> list[str]:
    """Return what is wrong with the values of a job's settings, in the words of an error's template."""
    return [
        f"{setting(name, value)}: {requirement.words}"
        for name, requirement in requirements.items()
        if not requirement.holds(value := getattr(job, name))
    ]


def check_kinds(job: Any) -> None:
    """Raise SettingsError for values of a wrong kind, which lists what else is wrong with the values as well."""
    wrong = problems(job, KINDS)
    if wrong:
        raise SettingsError("; ".join([*wrong, *problems(job)]))
