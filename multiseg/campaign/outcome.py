"""The outcome of the check of one random network in one backend, and the file of all outcomes of a campaign."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from multiseg._version import __version__
from multiseg.errors import SettingsError
from multiseg.files import read_text

Verdict = Literal["agrees", "partly", "not expressible", "known fault", "differs", "error", "crash"]
ALARMS: tuple[Verdict, ...] = ("differs", "error", "crash")
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
NAME = "results.jsonl"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one network in one backend.

    - ``verdict``: ``agrees``: every number was compared; ``partly``: all that was compared agrees, ``words`` give the rest;
      ``not expressible``: the framework has no such layer; ``known fault``: the process died after it trained a layer with a
      fault of docs/upstream-faults.md, or the numbers of such a network differ, and it agrees with lowering, which avoids that;
      ``differs``: the first difference is in ``words``; ``error``: the backend raised an error; ``crash``: its process died.
    - ``comparisons``: their number; ``types``: the types of the network's layers; ``seconds``: of the check; ``part``: the
      folder of the reduced part, relative to the campaign's, ``layers`` the types of its layers, and ``alone`` whether the
      framework alone shows the difference.
    """

    number: int
    backend: str
    verdict: Verdict
    words: str = ""
    comparisons: int = 0
    types: tuple[str, ...] = ()
    loss: str = ""
    solver: str = ""
    seconds: float = 0.0
    part: str = ""
    layers: tuple[str, ...] = ()
    alone: bool | None = None

    @property
    def alarm(self) -> bool:
        """Whether the outcome has to be explained."""
        return self.verdict in ALARMS


@dataclass
class Outcomes:
    """The outcomes of a campaign, kept in a file of one JSON object per line, if there is a folder."""

    seed: int
    folder: Path | None = None
    rows: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.folder is None:
            return
        path = self.folder / NAME
        if path.exists():
            self.rows = list(self._read(path))
        else:
            path.write_text(json.dumps({"multiseg": __version__, "seed": self.seed}) + "\n")

    def _read(self, path: Path) -> Iterator[Outcome]:
        """Yield the outcomes in a file. A last line that was not completely written is removed."""
        text = read_text(path)
        complete, _, rest = text.rpartition("\n")
        if rest:
            path.write_text(complete + "\n" if complete else "")
        try:
            head, *rows = [json.loads(line) for line in complete.splitlines()]
            outcomes = [_outcome(row) for row in rows]
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise SettingsError(f"{path}: is not a file of a campaign's outcomes; specify another folder") from error
        if not isinstance(head, dict) or head.get("seed") != self.seed or head.get("multiseg") != __version__:
            raise SettingsError(
                f"{path}: belongs to another campaign, {head}; specify another folder, or continue it with the same seed and "
                f"version (seed {self.seed}, multiseg {__version__})"
            )
        yield from outcomes

    def add(self, outcome: Outcome) -> None:
        """Add an outcome, and append it to the file."""
        self.rows.append(outcome)
        if self.folder is not None:
            with (self.folder / NAME).open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")

    @property
    def done(self) -> set[tuple[int, str]]:
        """Numbers of networks and names of backends of the outcomes."""
        return {(row.number, row.backend) for row in self.rows}

    @property
    def alarms(self) -> list[Outcome]:
        """The outcomes that have to be explained."""
        return [row for row in self.rows if row.alarm]


def _outcome(values: dict[str, Any]) -> Outcome:
    outcome = Outcome(**{**values, "types": tuple(values["types"]), "layers": tuple(values["layers"])})
    if outcome.verdict not in VERDICTS:
        raise ValueError(outcome.verdict)
    return outcome
