"""What each rank of test_ranks.py runs: jobs one after the other, and what became of each.

Arguments: a folder; jobs as JSON, [settings, run folder, whether to resume] each; settings may be a list, of one for each rank.
"""

import json
import os
import sys
from pathlib import Path

import multiseg


def main() -> None:
    rank = int(os.environ["RANK"])
    outcomes = []
    for settings, folder, resume in json.loads(sys.argv[2]):
        own = settings[rank] if isinstance(settings, list) else settings
        try:
            run = multiseg.Job(**own).train(folder, resume=resume, progress=say)
        except multiseg.MultisegError as error:
            outcomes.append([type(error).__name__, str(error)])
        else:
            outcomes.append(["finished", run.summary["status"]])
    Path(sys.argv[1], f"rank-{rank}.json").write_text(json.dumps(outcomes))


def say(event: dict) -> None:
    print(event["event"], flush=True)


if __name__ == "__main__":
    main()
