"""Values of JSON files are checked against tables."""

from __future__ import annotations

from typing import Any

import pytest

from multiseg.schema import FLAG, NUMBER, SHAPE, TEXT, WHOLE, Schema, list_of, mapping_of, optional, or_none, problem

TABLE: Schema = {
    "a": WHOLE,
    "inner.flag": FLAG,
    "inner.texts": optional(list_of(TEXT, "a list of texts")),
    "numbers": optional(or_none(mapping_of(NUMBER, "an object of numbers"))),
    "shape": optional(SHAPE),
}
RIGHT: dict[str, Any] = {"a": 1, "inner": {"flag": True}, "more": object()}


@pytest.mark.parametrize(
    "change",
    [{}, {"numbers": None}, {"numbers": {"x": 1.5}}, {"shape": [1, 2, 3]}, {"inner": {"flag": False, "texts": ["\udcff"]}}],
)  # fmt: skip
def test_values_of_the_right_kinds_pass(change: dict[str, Any]) -> None:
    assert problem({**RIGHT, **change}, TABLE) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (None, "its content is not a JSON object"),
        ([1], "its content is not a JSON object"),
        ({}, "a is missing; it is a whole number"),
        ({**RIGHT, "a": True}, "a is True, not a whole number"),
        ({**RIGHT, "a": 2**63}, "a is 9223372036854775808, not a whole number"),
        ({**RIGHT, "a": 10**5000}, "a is a number of very many digits, not a whole number"),
        ({**RIGHT, "a": "x" * 1000}, f"a is '{'x' * 59}..., not a whole number"),
        ({**RIGHT, "inner": 3}, "inner.flag is missing; it is true or false"),
        ({**RIGHT, "inner": {"flag": 1}}, "inner.flag is 1, not true or false"),
        ({**RIGHT, "inner": {"flag": True, "texts": ["\ud800"]}}, "inner.texts is a list of 1 values, not a list of texts"),
        ({**RIGHT, "inner": {"flag": True, "texts": ["a\0"]}}, "inner.texts is a list of 1 values, not a list of texts"),
        ({**RIGHT, "numbers": {"x": float("nan")}}, "numbers is an object of 1 values, not an object of numbers or null"),
        ({**RIGHT, "shape": [1, 2, 0]}, "shape is a list of 3 values, not three positive whole numbers"),
        ({**RIGHT, "shape": [1, 2]}, "shape is a list of 2 values, not three positive whole numbers"),
    ],
)  # fmt: skip
def test_the_first_value_that_is_wrong_is_named(values: Any, words: str) -> None:
    assert problem(values, TABLE) == words
