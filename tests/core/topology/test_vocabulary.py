"""The vocabulary of layer types is complete, and everything that lists types or parameters agrees with it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from multiseg.reference.network import RULES
from multiseg.topology import Layer
from multiseg.topology.drawing import FILLS
from multiseg.topology.vocabulary import PARAMETERS, VOCABULARY, canonical_form, infer, types

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_reference_computes_every_type_of_the_vocabulary() -> None:
    assert set(RULES) == set(VOCABULARY)


def test_every_parameter_is_described_and_used() -> None:
    described = {name for name, parameter in PARAMETERS.items() if not parameter.derived}
    assert described == {name for row in VOCABULARY.values() for name in row.parameters}


def test_alternatives_and_words_are_of_the_types_own_parameters() -> None:
    for name, row in VOCABULARY.items():
        assert {*row.alternatives, *row.words} <= set(row.parameters), name


def test_every_category_but_shaping_has_a_colour() -> None:
    assert set(FILLS) == {row.category for row in VOCABULARY.values()} - {"shaping"}


def documented(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, as lists of cells."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_the_documented_table_has_the_types_and_parameters_of_the_vocabulary() -> None:
    table: dict[str, set[str]] = {}
    before: set[str] = set()
    for names, parameters in documented("model-files.md", "The vocabulary"):
        own = set(re.findall(r"`(\w+)`", parameters)) | (before if parameters.startswith("the same") else set())
        table.update(dict.fromkeys(names.split(", "), own))
        before = own
    assert table == {name: set(row.parameters) for name, row in VOCABULARY.items()}


def test_the_documented_limits_of_exporting_name_every_type() -> None:
    rows = documented("migrate.md", "Supported layers")
    assert {name for names, _ in rows for name in names.split(", ")} == {*VOCABULARY, "any other"}


@pytest.mark.parametrize("name", sorted(types(lambda row: row.reach == "pixel")))
def test_types_of_single_pixels_keep_the_shape(name: str) -> None:
    parameters = {"exponent": 2.0} if name == "Pow" else {}
    shapes, _, multiply_adds = infer(name, parameters, [(3, 5, 7)])
    assert (shapes, multiply_adds) == ([(3, 5, 7)], 0)


def test_a_parameter_left_out_is_its_default() -> None:
    said = {"Pow": {"exponent": 2.0}, "LRN": {"size": 5}}
    for name in types(lambda row: row.reach == "pixel" or row.category == "normalisation"):
        short = said.get(name, {})
        full = VOCABULARY[name].complete(short)
        forms = [
            canonical_form(Layer("layer", name, ("x",), ("layer",), parameters, ((3, 5, 7),)), [(3, 5, 7)])
            for parameters in (short, full)
        ]
        assert forms[0] == forms[1], name
        assert infer(name, short, [(3, 5, 7)]) == infer(name, full, [(3, 5, 7)]), name


@pytest.mark.parametrize(
    ("kind", "value", "form"),
    [
        ("Add", 0.0, "Identity"), ("Sub", 0.0, "Identity"), ("Mul", 1.0, "Identity"), ("Div", 1.0, "Identity"),
        ("Mul", 0.0, "Mul"), ("Div", 0.5, "Mul"), ("Div", 0.0, "Div"),
    ],
)  # fmt: skip
def test_a_constant_that_changes_nothing_is_left_out(kind: str, value: float, form: str) -> None:
    layer = Layer("layer", kind, ("x",), ("layer",), {"value": value}, ((3,),))
    assert canonical_form(layer, [(3,)])[0] == form


@pytest.mark.parametrize(
    ("one", "other"), [(("Sub", 0.5), ("Add", -0.5)), (("Div", -4.0), ("Mul", -0.25)), (("Div", 3.0), ("Mul", 1 / 3))]
)
def test_a_constant_that_is_subtracted_or_divided_by(one: tuple[str, float], other: tuple[str, float]) -> None:
    layers = [Layer("layer", kind, ("x",), ("layer",), {"value": value}, ((3,),)) for kind, value in (one, other)]
    assert canonical_form(layers[0], [(3,)]) == canonical_form(layers[1], [(3,)])


def test_the_vocabulary_is_imported_without_frameworks_or_pillow() -> None:
    code = "import sys, multiseg.topology.vocabulary; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"PIL", "torch", "tensorflow", "caffe"} & set(modules)
