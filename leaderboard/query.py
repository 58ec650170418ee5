"""A visitor's SQL on a snapshot: one SELECT, in a process of its own.

    python query.py DATABASE < statement.sql

A process, because nothing inside DuckDB bounds the memory of a statement such as ``repeat('x', 1e9)``.
It gets no environment of ours and may use ``MEMORY`` bytes; the database is opened read-only, and files,
extensions and settings are locked. The result is one JSON on standard output: columns, rows of
numbers and bounded texts, and whether there was more, or an error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

SECONDS = 5.0
ROWS = 1_000
COLUMNS = 100
CELL = 2_000  # characters
LENGTH = 2_000_000  # characters of all rows together
MEMORY = 2 << 30  # bytes of address space, of which much is only reserved

LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "memory_limit": "512MB",
    "threads": "2",
    "lock_configuration": "true",
}
"""DuckDB's settings for a file that strangers ask about: it reaches nothing but itself."""

_AT_ONCE = BoundedSemaphore(2)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement returned.

    Attributes:
        columns: Their names.
        rows: Numbers, texts and None.
        cut: Whether there were more rows than are shown.
        error: One sentence instead of rows.
    """

    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    cut: bool = False
    error: str | None = None


def ask(database: Path, statement: str, seconds: float = SECONDS) -> Answer:
    """The rows of one SELECT statement, or a sentence that says why there are none."""
    with _AT_ONCE:
        try:
            done = subprocess.run(
                [sys.executable, "-I", __file__, str(database)],
                input=statement.encode("utf-8", "replace"),
                capture_output=True,
                timeout=seconds,
                env={"MALLOC_ARENA_MAX": "1"},  # each more reserves address space
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer(error=f"Stopped after {seconds:g} s; ask for less, such as one run_id.")
    try:
        return Answer(**json.loads(done.stdout))
    except ValueError:
        return Answer(error="The statement was ended; it needs too much memory. Ask for less.")


def _answer(database: str, statement: str) -> dict[str, Any]:
    import duckdb

    try:
        statements = duckdb.extract_statements(statement)
        if [each.type for each in statements] != [duckdb.StatementType.SELECT]:
            return {"error": "Type one SELECT statement, such as: SELECT * FROM entries"}
        with duckdb.connect(
            database, read_only=True, config=LOCKED | {"threads": "1"}
        ) as connection:
            # The LIMIT is outside, so that no more rows are made than are shown.
            found = connection.execute(
                f"SELECT * FROM (\n{statements[0].query.rstrip().rstrip(';')}\n) LIMIT {ROWS + 1}"
            )
            columns = [name[:CELL] for name, *_ in found.description or ()][:COLUMNS]
            rows, cut = _bounded(found)
            return {"columns": columns, "rows": rows, "cut": cut}
    except MemoryError:
        return {"error": "The statement needed too much memory; ask for less."}
    except duckdb.Error as error:
        return {"error": str(error)[:CELL]}


def _bounded(found: Any) -> tuple[list[list[Any]], bool]:
    rows: list[list[Any]] = []
    length = 0
    while row := found.fetchone():
        cells = [_cell(value) for value in row[:COLUMNS]]
        length += sum(len(str(cell)) for cell in cells)
        if len(rows) == ROWS or length > LENGTH:
            return rows, True
        rows.append(cells)
    return rows, False


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | float) or (type(value) is int and value < 2**53):
        return value
    return str(value)[:CELL]


def _main() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answer = _answer(sys.argv[1], sys.stdin.read())
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()
