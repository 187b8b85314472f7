"""The vocabulary of layer types: one table with everything that multiseg's core knows of each type."""

from multiseg.topology.vocabulary.canonical_forms import CanonicalForm, comparable, sum_factors
from multiseg.topology.vocabulary.layer_type import OPTIONAL, REQUIRED, LayerType
from multiseg.topology.vocabulary.parameters import PARAMETERS, Parameter
from multiseg.topology.vocabulary.shapes import Inferred, ShapeError, axis_index, crop_bounds, window_pads
from multiseg.topology.vocabulary.table import VOCABULARY, canonical_form, infer, types

__all__ = [
    "OPTIONAL",
    "PARAMETERS",
    "REQUIRED",
    "VOCABULARY",
    "CanonicalForm",
    "Inferred",
    "LayerType",
    "Parameter",
    "ShapeError",
    "axis_index",
    "canonical_form",
    "comparable",
    "crop_bounds",
    "infer",
    "sum_factors",
    "types",
    "window_pads",
]
