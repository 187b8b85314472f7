"""job.train, as a program calls it: a turn is what lies between two rows of its history, its seconds are the history's.

Steps with feed, messages, schedule, events and progress; validation and snapshots are not in those seconds. How many steps
lie between two rows is the asking side's to know.
"""

import sys
from pathlib import Path

from rich.console import Console
from serving import options, said

import multiseg
from multiseg.progress import Bar

given = options()
answers = said()


def turn(event: dict) -> None:
    """Show progress; at a row answer for the turn that ends, and wait for the next one."""
    bar(event)
    if event["event"] == "epoch":
        print(event["seconds"] if event["iteration"] else "ready", file=answers)
        if not sys.stdin.readline():
            sys.exit()


with Path("/dev/null").open("w") as terminal, Bar(Console(file=terminal, force_terminal=True)) as bar:
    multiseg.Job(**given["job"]).train(given["folder"], progress=turn)
