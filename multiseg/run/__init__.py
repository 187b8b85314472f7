"""Run folders: names, reading, writing, snapshots, and testing with what was trained."""

from multiseg.run.run import Run

__all__ = ["Run"]
