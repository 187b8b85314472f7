"""Build the API reference from the docstrings into FOLDER: python docs/build_api.py FOLDER. Any warning is an error."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import pkgutil
import typing
import warnings
from pathlib import Path
from types import ModuleType

import pdoc
import pdoc.render

MODULES = (
    "multiseg",
    "multiseg.errors",
    "multiseg.backend",
    "multiseg.network",
    "multiseg.topology",
    "multiseg.inference",
    "multiseg.testing",
    "multiseg.settings",
)


def resolve_inherited_fields(module: ModuleType) -> None:
    """Replace the annotations, strings, of dataclass constructors by types.

    pdoc evaluates them in the module of the class, which may not import the types of the fields that the class inherits.
    """
    for name in getattr(module, "__all__", vars(module)):
        value = getattr(module, name)
        if isinstance(value, type) and dataclasses.is_dataclass(value):
            value.__init__.__annotations__.update(typing.get_type_hints(value))  # type: ignore[misc]


def main(folder: str) -> None:
    """Build the reference of MODULES, with their submodules unless ``__all__`` selects names."""
    warnings.simplefilter("error")
    for name in MODULES:
        module = importlib.import_module(name)
        resolve_inherited_fields(module)
        if not hasattr(module, "__all__") and hasattr(module, "__path__"):
            for part in pkgutil.iter_modules(module.__path__, f"{name}."):
                resolve_inherited_fields(importlib.import_module(part.name))
    pdoc.render.configure(docformat="restructuredtext")
    pdoc.pdoc(*MODULES, output_directory=Path(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the API reference.")
    parser.add_argument("folder", help="folder to write")
    main(parser.parse_args().folder)
