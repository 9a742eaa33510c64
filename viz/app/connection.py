"""A run folder and the locked connection over its large tables.

`prompts`, `answers`, `readouts` and `projection` may have millions of rows, so they are never read whole: duckdb runs over the Parquet
files and skips the row groups it does not need.

Values only ever arrive bound, never as text of a query. The connection reads those four files and nothing else, neither from disk nor from
the network, and what it may do cannot be changed any more. Every query has a cursor of its own, so threads may share a Source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow
import pyarrow.parquet as pq

from ..tables import COLUMNS, MADE_BY, TableProblem, makes

LARGE = ("prompts", "answers", "readouts", "projection")
UNREADABLE = (pyarrow.ArrowException, OSError, UnicodeDecodeError)
Stamp = tuple[int, int]
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,
    "temp_directory": "",
}


@dataclass(frozen=True, eq=False)
class Source:
    """A run folder and the connection that reads its large tables. Opening reads nothing."""

    run: Path
    connection: duckdb.DuckDBPyConnection

    @classmethod
    def open(cls, run: Path, *, threads: int | None = None) -> Source:
        """threads: for one query; None: as many as there are cores. FileNotFoundError where there is no such folder."""
        run = Path(run).resolve()
        if not run.is_dir():
            raise FileNotFoundError(f"no run folder at {run}; `thoughtlens demo` makes one")
        connection = duckdb.connect(":memory:", config=SETTINGS if threads is None else SETTINGS | {"threads": threads})
        files = ", ".join("'" + str(path_of(run, name)).replace("'", "''") + "'" for name in LARGE)
        connection.execute(f"SET allowed_paths = [{files}]")  # a setting takes no bound value
        for setting in ("parquet_metadata_cache = true", "enable_external_access = false", "lock_configuration = true"):
            connection.execute(f"SET {setting}")
        return cls(run, connection)


def query(source: Source, sql: str, names: Sequence[str], values: Mapping[str, object] | None = None) -> pd.DataFrame:
    """Rows of a query over large tables, which appear in it as read_parquet($name)."""
    for name in names:
        columns_of(source.run, name, stamp_of(source.run, name))
    bound = {name: str(path_of(source.run, name)) for name in names} | dict(values or {})
    try:
        with source.connection.cursor() as cursor:
            return cursor.sql(sql, params=bound).to_arrow_table().to_pandas()
    except duckdb.Error as problem:
        for name in names:
            _read_through(source.run, name)
        why = str(problem).splitlines()[0][:200]
        raise TableProblem(f"The tables {', '.join(names)} do not answer: {why} Make them again.") from problem


def _read_through(run: Path, name: str) -> None:
    try:
        with pq.ParquetFile(path_of(run, name)) as file:
            for _ in file.iter_batches():
                pass
    except UNREADABLE as problem:
        raise _damaged(name) from problem


def _damaged(name: str) -> TableProblem:
    again = f"`{MADE_BY[name]}` makes it."
    return TableProblem(f"The {name} table cannot be read: tables/{name}.parquet is damaged. Delete it; {again}")


@lru_cache(maxsize=256)
def columns_of(run: Path, name: str, stamp: Stamp) -> tuple[str, ...]:
    """Of a table that is there and whole, from the end of its file alone. Raises the TableProblem that `read_table` would."""
    path, again = path_of(run, name), makes(run, name)
    if not path.is_file():
        raise TableProblem(f"This run has no {name} table (tables/{name}.parquet). {again}")
    try:
        with pq.ParquetFile(path) as file:
            columns, rows = file.schema_arrow.names, file.metadata.num_rows
    except UNREADABLE as problem:
        raise _damaged(name) from problem
    if lacking := [column for column in COLUMNS[name] if column not in columns]:
        raise TableProblem(f"The {name} table lacks {', '.join(lacking)}; it has {', '.join(columns) or 'no columns'}. {again}")
    if not rows:
        raise TableProblem(f"The {name} table is empty (no rows in tables/{name}.parquet). {again}")
    return tuple(columns)


def path_of(run: Path, name: str) -> Path:
    return run / "tables" / f"{name}.parquet"


def stamp_of(run: Path, name: str) -> Stamp:
    """Changes when the table's file does; (0, 0) where there is none."""
    try:
        found = path_of(run, name).stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
