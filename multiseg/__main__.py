"""``python -m multiseg``."""

from multiseg.cli import main

main(prog_name="multiseg")
