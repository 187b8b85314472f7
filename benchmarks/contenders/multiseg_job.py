"""job.train, as a program calls it: a turn is the interval between two rows of its history, with the seconds of the history.

Steps with feed, messages, schedule, events and progress; validation and snapshots are not in those seconds. They are scaled to
the number of steps that is asked for.
"""

import sys
from pathlib import Path

from rich.console import Console
from serving import options, said

import multiseg
from multiseg.training.progress import Bar

given = options()
answers = said()
count, done = 0, 0


def turn(event: dict) -> None:
    """Show progress; at a row answer for the turn that ends, and wait for the next one."""
    global count, done
    bar(event)
    if event["event"] == "epoch":
        steps, done = event["iteration"] - done, event["iteration"]
        print(event["seconds"] * count / steps if done else "ready", file=answers)
        count = int(sys.stdin.readline() or sys.exit())


with Path("/dev/null").open("w") as terminal, Bar(Console(file=terminal, force_terminal=True)) as bar:
    multiseg.Job(**given["job"]).train(given["folder"], progress=turn)
