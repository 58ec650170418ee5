"""Files that are written aside and then put in place, so that no reader meets half of one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

#: The id of a run, the name of a training or of a baseline.
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces ``path`` if nothing is raised."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the system write a file or a folder to its disk; an OSError if it cannot."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(target: Path) -> None:
    """Remove what processes that were killed while writing left beside ``target``."""
    for path in target.parent.glob(f".{escape(target.name)}.*"):
        process = path.name.removeprefix(f".{target.name}.").removesuffix(".wal")
        if process.isdecimal() and not _runs(int(process)):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether another process has this number."""
    try:
        os.kill(process, 0)
    except PermissionError:  # someone else's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return process != os.getpid()
