"""docs/testing.md in a project of a user's: its first example, run by pytest in a folder of its own, over the real frameworks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
NETWORK = """
from torch import nn

class MyNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        return self.conv2(self.conv1(x).{activation}())
"""


def run(folder: Path, backends: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=folder, capture_output=True, text=True,
        timeout=300, env={**environment, "MULTISEG_TEST_BACKENDS": ",".join(backends)},
    )  # fmt: skip


@pytest.mark.needs("torch")
def test_a_module_is_the_same_on_every_backend_in_five_lines(backends: list[str], tmp_path: Path) -> None:
    example = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)[0]
    assert len(example.strip().splitlines()) <= 5
    (tmp_path / "test_my_network.py").write_text(example)
    (tmp_path / "my_network.py").write_text(NETWORK.format(activation="relu"))
    done = run(tmp_path, backends)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


@pytest.mark.needs("torch")
def test_two_files_that_are_not_one_network_fail_in_words(tmp_path: Path) -> None:
    test = "def test_them(multiseg_parity):\n    multiseg_parity('one.py', 'other.py', steps=1)\n"
    (tmp_path / "test_them.py").write_text(test)
    (tmp_path / "one.py").write_text(NETWORK.format(activation="relu"))
    (tmp_path / "other.py").write_text(NETWORK.format(activation="tanh"))
    done = run(tmp_path, ["torch"])
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout
    assert "because the networks differ" in done.stdout and "Tanh" in done.stdout and "Traceback" not in done.stdout, (
        done.stdout
    )
