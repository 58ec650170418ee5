"""Writing a DuckDB file: its tables, their rows, and that it is on disk before anyone sees it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import duckdb
import pyarrow

from cowest_bench.store.files import flush, remove_leftovers, replaced
from cowest_bench.store.schema import TABLES

TableRow = dict[str, Any]

#: Of the connection that writes: bounded memory, and nothing printed.
SETTINGS = "SET memory_limit = '1GB'; SET enable_progress_bar = false"
BATCH = 50_000  # rows that are made in Python at a time
JSON_LENGTH = 100_000  # characters of a run's metadata that are kept
LARGEST = {"INTEGER": 2**31 - 1, "BIGINT": 2**63 - 1}
ARROW_TYPES = {
    "DOUBLE": pyarrow.float64(),
    "INTEGER": pyarrow.int64(),
    "BIGINT": pyarrow.int64(),
    "BOOLEAN": pyarrow.bool_(),
    "TIMESTAMPTZ": pyarrow.timestamp("us", "UTC"),
    "VARCHAR[]": pyarrow.list_(pyarrow.string()),
}


# --- the file -------------------------------------------------------------------------------------


@contextmanager
def new_database(
    target: Path, tables: Iterable[str], views: Mapping[str, str]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database that replaces ``target`` at the end, if all of it is on disk then.

    Args:
        target: The file. Who reads an older one is not disturbed.
        tables: Names of ``schema.TABLES``.
        views: Their queries by name.

    Raises:
        OSError: If it cannot be written; ``target`` is as before.
        duckdb.Error: Likewise.
    """
    remove_leftovers(target)
    with replaced(target) as path:
        log = path.with_name(f"{path.name}.wal")
        try:
            with duckdb.connect(str(path)) as db:
                db.execute(SETTINGS)
                create(db, tables, views)
                yield db
                written = count_rows(db, tables)
                # Closing does it too, but says nothing if the disk is full.
                db.execute("CHECKPOINT")
            with duckdb.connect(str(path), read_only=True) as db:
                if count_rows(db, tables) != written:
                    raise OSError(f"{target} has other rows than were written to it")
            flush(path)
        finally:
            log.unlink(missing_ok=True)
    flush(target.parent)


def create(db: duckdb.DuckDBPyConnection, tables: Iterable[str], views: Mapping[str, str]) -> None:
    """Make empty tables, and views on them."""
    for table in tables:
        listed = ", ".join(f'"{name}" {kind}' for name, kind in TABLES[table].items())
        db.execute(f"CREATE TABLE {table} ({listed})")
    for name, query in views.items():
        db.execute(f"CREATE VIEW {name} AS {query}")


def count_rows(db: duckdb.DuckDBPyConnection, tables: Iterable[str]) -> dict[str, int]:
    """How many rows each table has."""
    found = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables}
    return {table: row[0] for table, row in found.items() if row}


# --- the rows -------------------------------------------------------------------------------------


def insert(db: duckdb.DuckDBPyConnection, table: str, rows: Iterable[TableRow]) -> None:
    """Add rows to a table; what they lack, and numbers that are none, is NULL."""
    columns = TABLES[table]
    waiting = iter(rows)
    while batch := [*islice(waiting, BATCH)]:
        arrays = {name: _column(name, kind.split()[0], batch) for name, kind in columns.items()}
        db.register("incoming", pyarrow.table(arrays))
        db.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
        db.unregister("incoming")


def _column(name: str, kind: str, batch: Sequence[TableRow]) -> Any:
    values = [_cell(row.get(name), kind) for row in batch]
    return pyarrow.array(values, ARROW_TYPES.get(kind, pyarrow.string()))


def _cell(value: Any, kind: str) -> Any:
    """A value as its column takes it."""
    if value is None:
        return None
    if kind == "DOUBLE":
        return float(value) if isfinite(value) else None
    if kind in LARGEST:
        return int(value) if abs(value) <= LARGEST[kind] else None
    if kind == "JSON":
        return _json(value)
    # Half a character, which JSON can hold and UTF-8 cannot.
    return value.encode("utf-8", "replace").decode() if kind == "VARCHAR" else value


def _json(value: Any) -> str:
    """As JSON that every reader takes: without NaN, and of bounded length."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return json.dumps({"left out": "nested too deeply"})
    if "NaN" in text or "Infinity" in text:
        text = json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    if len(text) > JSON_LENGTH:
        text = json.dumps({"left out": f"{len(text):,} characters"})
    return text.encode("utf-8", "replace").decode()
