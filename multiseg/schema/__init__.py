"""Check values that were read from JSON against a table of keys and kinds, before anything uses them."""

from multiseg.schema.kinds import (
    ANY,
    FLAG,
    NUMBER,
    OBJECT,
    POSITIVE,
    SHAPE,
    TEXT,
    WHOLE,
    Kind,
    Schema,
    list_of,
    mapping_of,
    optional,
    or_none,
    problem,
)

__all__ = [
    "ANY",
    "FLAG",
    "NUMBER",
    "OBJECT",
    "POSITIVE",
    "SHAPE",
    "TEXT",
    "WHOLE",
    "Kind",
    "Schema",
    "list_of",
    "mapping_of",
    "optional",
    "or_none",
    "problem",
]
