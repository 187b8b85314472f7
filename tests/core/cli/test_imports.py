"""What the command imports to print the help of all commands."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("multiseg.conversion", "multiseg.job", "multiseg.parity", "multiseg.report", "multiseg.run", "multiseg.topology",
         "multiseg.training")  # fmt: skip


def test_help_imports_no_concept_that_only_commands_use() -> None:
    code = (
        "import sys\nfrom multiseg.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print('FOUND', *(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "create-dataset" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["FOUND"]
