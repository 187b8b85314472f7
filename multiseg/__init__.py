"""Train, test and compare one segmentation network in Caffe, PyTorch and TensorFlow, over one LMDB dataset.

Importing this brings in no framework; each name below is imported when it is first used.
"""

# this module imports nothing: until multiseg.cli.starting is imported, Ctrl-C at the command is shown as a traceback
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from multiseg._version import __version__ as __version__
    from multiseg.conversion import convert
    from multiseg.dataset import Dataset
    from multiseg.dataset.scenes import create_images
    from multiseg.errors import MultisegError
    from multiseg.exporting import export
    from multiseg.job import Job
    from multiseg.jobs import read_jobs, train_jobs
    from multiseg.model_files import describe
    from multiseg.parity import check_parity
    from multiseg.report import compare
    from multiseg.run.run import Run
    from multiseg.worker.status import backends

_WHERE = {
    "Dataset": "multiseg.dataset",
    "Job": "multiseg.job",
    "MultisegError": "multiseg.errors",
    "Run": "multiseg.run.run",
    "backends": "multiseg.worker.status",
    "check_parity": "multiseg.parity",
    "compare": "multiseg.report",
    "convert": "multiseg.conversion",
    "create_images": "multiseg.dataset.scenes",
    "describe": "multiseg.model_files",
    "export": "multiseg.exporting",
    "read_jobs": "multiseg.jobs",
    "train_jobs": "multiseg.jobs",
    "__version__": "multiseg._version",
}

__all__ = [
    "Dataset",
    "Job",
    "MultisegError",
    "Run",
    "backends",
    "check_parity",
    "compare",
    "convert",
    "create_images",
    "describe",
    "export",
    "read_jobs",
    "train_jobs",
]


def __getattr__(name: str) -> "Any":
    if name not in _WHERE:
        raise AttributeError(f"module 'multiseg' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
