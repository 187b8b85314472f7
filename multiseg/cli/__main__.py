"""``python -m multiseg.cli``."""

from multiseg.cli import main

main(prog_name="multiseg")
