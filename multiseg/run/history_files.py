"""Write the history of a run to a table file for other programs."""

from __future__ import annotations

import io
from pathlib import Path

from multiseg.errors import RunError, SettingsError
from multiseg.files import read_bytes, write_bytes
from multiseg.run import names
from multiseg.run.names import COLUMNS
from multiseg.run.reading import read_history


def export_history(run: Path, path: str | Path) -> Path:
    """Write the history of a run folder to a .csv file, or to a .parquet file with pyarrow (the extra ``parquet``).

    Return the path of the file. Raises SettingsError for another extension, or if pyarrow is not installed, RunError without a
    history.
    """
    target = Path(path)
    if target.suffix == ".csv":
        try:
            content = read_bytes(run / names.HISTORY, follow=False)
        except OSError as error:
            raise RunError(f"{run / names.HISTORY}: cannot be read: {error.strerror}") from error
        write_bytes(target, content)
    elif target.suffix == ".parquet":
        try:
            from pyarrow import Table, parquet
        except ImportError as error:
            raise SettingsError(f"{target}: needs pyarrow ({error}); pip install 'multiseg[parquet]'") from error
        rows = read_history(run / names.HISTORY)
        table = io.BytesIO()
        parquet.write_table(Table.from_pydict({name: [row[name] for row in rows] for name in COLUMNS}), table)
        write_bytes(target, table.getvalue())
    else:
        raise SettingsError(f"{target}: is not a supported table format; use the extension .csv or .parquet")
    return target
