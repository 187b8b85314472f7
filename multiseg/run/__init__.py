"""Run folders: names, reading, writing, snapshots, and testing with what was trained."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiseg.run.run import Run

__all__ = ["Run"]


def __getattr__(name: str) -> "type[Run]":
    """Import what tests with a run when it is first used: reading the files of a run takes much less."""
    if name != "Run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from multiseg.run.run import Run

    globals()[name] = Run
    return Run


def __dir__() -> list[str]:
    return sorted([*globals(), "Run"])
