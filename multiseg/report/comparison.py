"""Compare runs: their metrics, read from the run folders, and a page that also shows their outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from multiseg.errors import RunError, SettingsError, setting
from multiseg.files import make_folder, write_text
from multiseg.pages.numbers import number
from multiseg.report import requirements, tables
from multiseg.report.agreement import agreement
from multiseg.report.facts import Row, RunFacts, environment, gather, settings
from multiseg.report.side_by_side import SideBySide
from multiseg.run.run import Run
from multiseg.settings.metrics import COSTS, METRICS


def compare(
    runs: Iterable[Run | str | Path],
    images: int = 24,
    grid: str | Path | None = None,
    dataset: str | Path | None = None,
) -> Comparison:
    """Return the comparison of runs or run folders.

    ``images``: number of validation images on the page, 0 for none; ``grid``: a large image to test with every run at its full
    size. Without both, no backend is started. ``dataset``: where the dataset of the first run is, if it was moved; its content
    must be the same. Raises RunError if there are no runs, for a path in place of a list, or if a folder is not a run folder,
    SettingsError for negative ``images``, ImageError for a missing ``grid``, DatasetError for another dataset.
    """
    from multiseg.errors import ImageError
    from multiseg.run.run import Run

    if isinstance(runs, str | Path):  # whose letters are no runs
        raise RunError(f"{setting('runs', str(runs))}: must be a list of runs or run folders")
    opened = [Run.open(run) if isinstance(run, str | Path) else run for run in runs]
    if not opened:
        raise RunError("there are no runs to compare; name at least one run folder")
    if images < 0:
        raise SettingsError(f"{setting('images', images)}: must be 0 or more")
    if grid is not None and not Path(grid).is_file():
        raise ImageError(f"{grid}: there is no such image")
    if dataset is not None:
        opened[0].use_dataset(dataset)
    return Comparison(opened, images, None if grid is None else Path(grid))


class Comparison(SideBySide):
    """A comparison of runs. Only :meth:`to_html` starts backends, for its pictures; the other methods read the run folders."""

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page atomically, and return its path.

        Raises SettingsError if it cannot be written, DatasetError if the validation images cannot be read.
        """
        from multiseg.report.page import render

        path = Path(path)
        page = render(self)
        self.left_out = page.left_out
        try:
            make_folder(path.parent)
            write_text(path, page.text)
        except OSError as error:
            raise SettingsError(f"{path}: cannot be written ({error.strerror or error})") from error
        return path

    def to_markdown(self) -> str:
        """Return the headline, the table of metrics and the differing settings as Markdown, for a review comment."""
        from multiseg.report.markdown import write

        return write(self)

    def to_csv(self) -> str:
        """Return one line of CSV for each run, with all its figures, unrounded."""
        return tables.csv_text(self)

    def to_latex(self) -> str:
        """Return the table of metrics as a LaTeX ``tabular`` (package booktabs); best values are bold."""
        return tables.latex(tables.results(self))

    def pivot(self, column: str, metric: str | None = None) -> tables.Table:
        """Return a table of one metric, by network and backend, with a column for each dataset, seed or backend.

        Cells with several runs have mean and standard deviation. Raises SettingsError for another ``column`` or metric.
        """
        return tables.pivot(self, column, metric)

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the pictures as plain values for JSON; unknown and non-finite values are None."""
        seed_agreement = self.agreement
        return {
            "headline": self.headline,
            "comparable": self.comparable,
            "partings": [parting.to_dict() for parting in self.partings],
            "agreement": seed_agreement.to_dict() if seed_agreement else None,
            "runs": [_plain(each) for each in self.facts],
            "settings": self._differing(settings(self.facts)),
            "environment": self._differing(environment(self.facts)),
        }

    def check(
        self,
        require: Iterable[str] = (),
        max_gap: Mapping[str, float] | None = None,
        within_seeds: float | None = None,
        baseline: Iterable[Run | str | Path] = (),
        max_regression: Mapping[str, float] | None = None,
    ) -> list[str]:
        """Return one line for each requirement that is not met; an empty list if all are met.

        ``require``: expressions ``metric>=value`` (or ``<=``, ``>``, ``<``) that every run must meet; ``max_gap``: metric -> the
        largest allowed difference between runs; ``within_seeds``: backends may differ by at most this multiple of the difference
        between seeds, at the end and at the epoch with the largest difference. ``max_regression``: metric -> how much worse a run
        may be than the ``baseline`` run of the same backend and network (their mean). Raises SettingsError for an unknown
        metric, an invalid expression, and runs that do not allow comparing backends with seeds.
        """
        failures = requirements.check(self.facts, require, max_gap or {})
        earlier = [Run.open(run) if isinstance(run, str | Path) else run for run in baseline]
        if bool(earlier) != bool(max_regression):
            raise SettingsError(f"{setting('baseline')} and {setting('max_regression')} must be specified together")
        if max_regression:
            failures += requirements.regressions(self.facts, gather(earlier), max_regression)
        if within_seeds is None:
            return failures
        if not within_seeds > 0 or number(within_seeds) is None:
            raise SettingsError(f"{setting('within_seeds', within_seeds)}: must be a number above 0")
        return failures + agreement(self.facts).failures(within_seeds)

    def _differing(self, rows: Iterable[Row]) -> dict[str, dict[str, str]]:
        labels = [each.label for each in self.facts]
        return {row.key: dict(zip(labels, row.values, strict=True)) for row in rows if row.differs}


def _plain(facts: RunFacts) -> dict[str, Any]:
    costs = [metric.key for metric in COSTS]
    return {
        "label": facts.label,
        "name": facts.run.name,
        "path": str(facts.run.path),
        "backend": facts.run.backend,
        "version": facts.version,
        "dataset": {"path": facts.dataset, "content_hash": facts.content},
        "status": facts.status,
        "epoch": facts.epoch,
        "final": {key: facts.final[key] for key in METRICS if key not in costs},
        "best": {key: {"value": best.value, "epoch": best.epoch} for key, best in facts.best.items()},
        "cost": {key: facts.final[key] for key in costs},
    }
