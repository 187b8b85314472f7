"""The differences between two networks, with the page that shows them."""

from __future__ import annotations

from pathlib import Path

from multiseg.topology.comparison import NetworkDifference


class Difference(NetworkDifference):
    """All differences between two networks, see :class:`multiseg.topology.comparison.NetworkDifference`, and their page."""

    def to_html(self, path: str | Path) -> Path:
        """Write one page with both networks in one drawing: layers that are the same, changed, added and missing.

        Returns the path. Raises SettingsError for an extension other than .html.
        """
        from multiseg.topology import difference_page  # needs Pillow, which a worker does not have

        return difference_page.write(self, path)
