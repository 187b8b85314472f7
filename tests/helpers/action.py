"""Run the GitHub Action's steps as a runner does: scripts in bash, inputs as environment, summary and path in files.

python tests/helpers/action.py [INPUT=VALUE...]         in the folder of a user's project; needs PyYAML

Steps that `uses` another action are only named: those actions are GitHub's own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS: dict[str, dict[str, Any]] = {step["name"]: step for step in ACTION["runs"]["steps"]}


def run_script(
    name: str, folder: Path, environment: dict[str, str], **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the script of a step as GitHub does for `shell: bash`."""
    files = {"GITHUB_STEP_SUMMARY": str(folder / "summary.md"), "GITHUB_PATH": str(folder / "path")}
    script = STEPS[name]["run"]
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=folder, text=True,
        env={**os.environ, **files, **environment}, **options,
    )  # fmt: skip


def evaluated(expression: str, values: dict[str, str]) -> Any:
    """Return the value of an expression of action.yml: names of values, strings, ==, !=, &&, contains() and always()."""
    names = list(values)
    code = re.sub(
        r"\b(inputs|github)(\.[\w-]+)+", lambda name: f"v{names.index(name[0])}", expression.replace("&&", "and")
    )
    functions = {"contains": lambda text, part: part in text, "always": lambda: True}
    return eval(code, {"__builtins__": {}}, {f"v{at}": values[name] for at, name in enumerate(names)} | functions)


def main() -> int:
    """Run all steps; return the exit status of the first that fails."""
    inputs = {name: entry["default"] for name, entry in ACTION["inputs"].items()}
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if unknown := given.keys() - inputs.keys():
        sys.exit(f"not an input of action.yml: {', '.join(sorted(unknown))}")
    values = {f"inputs.{name}": value for name, value in {**inputs, **given}.items()}
    values |= {"github.action_path": str(ROOT), "github.event_name": "push"}
    status = 0
    for name, step in STEPS.items():
        condition = step.get("if", "'true'")
        if (status and "always()" not in condition) or not evaluated(condition, values):
            print(f"-- {name}: left out", flush=True)
        elif "uses" in step:
            print(f"-- {name}: {step['uses']}", flush=True)
        else:
            print(f"-- {name}", flush=True)
            began = time.monotonic()
            environment = {
                key: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: evaluated(found[1], values), value)
                for key, value in step.get("env", {}).items()
            }
            done = run_script(name, Path.cwd(), environment)
            print(f"-- {name}: exit status {done.returncode}, {time.monotonic() - began:.0f} s", flush=True)
            status = status or done.returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
