"""The result of a parity check, with the page that shows it."""

from __future__ import annotations

from pathlib import Path

from multiseg.errors import SettingsError
from multiseg.files import make_folder, write_text
from multiseg.parity.findings import Findings


class Parity(Findings):
    """The result of a parity check, see :class:`multiseg.parity.findings.Findings`, and its page."""

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page and return its path. Raises SettingsError where it cannot be written."""
        from multiseg.parity.page import render

        path = Path(path)
        try:
            make_folder(path.parent)
            write_text(path, render(self))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be written ({error.strerror or error})") from error
        return path
