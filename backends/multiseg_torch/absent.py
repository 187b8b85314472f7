"""Packages that network files import for programs around the network, and that are not installed: their names can be imported.

Using what they contain is an ImportError that names it. A package is replaced only after its import has failed and the file
did not handle that, so that a file with an alternative takes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn, Optional

PACKAGES = frozenset((
    "IPython", "albumentations", "apex", "cv2", "easydict", "fvcore", "h5py", "imageio", "ipdb", "matplotlib", "pandas",
    "ptflops", "pycocotools", "pydensecrf", "pytorch_lightning", "scipy", "seaborn", "skimage", "sklearn", "tensorboard",
    "tensorboardX", "thop", "torchnet", "torchsummary", "torchvision", "tqdm", "visdom", "wandb", "yaml",
))  # fmt: skip


class _Absent:
    """Something within an absent package. Its attributes are absent, too; any use raises ImportError."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return _Absent(f"{self.__name__}.{key}")

    def _fail(self, *_: object, **__: object) -> NoReturn:
        package = self.__name__.partition(".")[0]
        raise ImportError(f"{self.__name__} is needed, but {package} is not installed")

    __call__ = __mro_entries__ = __getitem__ = __iter__ = __contains__ = __len__ = __bool__ = __instancecheck__ = _fail
    __add__ = __radd__ = __mul__ = __rmul__ = __sub__ = __rsub__ = __enter__ = _fail


class _AbsentModule(ModuleType):
    """An absent package or module in it."""

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return _Absent(f"{self.__name__}.{key}")


class _Finder:
    """Finder of absent packages; it is asked last."""

    def __init__(self, packages: frozenset[str]) -> None:
        self.packages = packages

    def find_spec(
        self,
        name: str,
        path: Optional[Sequence[str]] = None,  # noqa: UP045 - Python 3.9
        target: Optional[ModuleType] = None,  # noqa: UP045
    ) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in self.packages else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """See importlib.abc.Loader."""
        return _AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """See importlib.abc.Loader."""


@contextmanager
def importable(packages: frozenset[str]) -> Iterator[None]:
    """Make absent packages importable within the block."""
    finder = _Finder(packages)
    sys.meta_path.append(finder)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
        for name in [name for name, module in sys.modules.items() if isinstance(module, _AbsentModule)]:
            del sys.modules[name]
