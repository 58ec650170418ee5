"""Databases made from stored runs: ``results/scores.duckdb``, and the tables of the leaderboard's.

``rebuild`` writes every finished run to the tables ``schema.RESULTS`` and the views ``schema.VIEWS``. The
file is replaced as a whole, so readers are not disturbed, and can be deleted at any time. A number is
computed in one place and means the same in both databases. A run that cannot be used is left out, and a
sentence says why.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

import duckdb
import numpy as np

from cowest_bench import __version__
from cowest_bench.errors import ComparisonError, ConfigError, RecordError, printable
from cowest_bench.store import comparison
from cowest_bench.store.cards import Feedback, all_feedback, card_of
from cowest_bench.store.files import FILE_NAME
from cowest_bench.store.records import Entry, Run
from cowest_bench.store.results import Results, Stored
from cowest_bench.store.rows import Measured, gain_rows, influence_rows, run_row
from cowest_bench.store.schema import RESULTS, SCHEMA_VERSION, TABLES, VIEWS
from cowest_bench.store.suites import NAME_LENGTH, Place, places
from cowest_bench.store.tables import TableRow, insert, new_database

logger = logging.getLogger("cowest_bench")

TEXTS = ("question", "gold", "draft", "output", "completions", "answer", "metrics", "error")
MOST_NOTES = 200
MOST_ROWS = 50_000  # that one statement copies, unless a run has more
HASH_LENGTH = 16  # characters of a cluster's hash

#: What the rows of runs add up to; a sum of which a part is not known is not known.
USAGE = """
    SELECT run_id, count(*) AS n_total, count(score) AS n_scored,
           CASE WHEN count(cost) = count(*) THEN sum(cost) END AS cost,
           sum(weak_calls) AS weak_calls, sum(strong_calls) AS strong_calls,
           sum(evaluator_calls) AS evaluator_calls,
           CASE WHEN count(weak_input_tokens + weak_output_tokens) = count(*)
                THEN sum(weak_input_tokens + weak_output_tokens) END AS weak_tokens,
           CASE WHEN count(strong_input_tokens + strong_output_tokens) = count(*)
                THEN sum(strong_input_tokens + strong_output_tokens) END AS strong_tokens,
           CASE WHEN count(evaluator_input_tokens + evaluator_output_tokens) = count(*)
                THEN sum(evaluator_input_tokens + evaluator_output_tokens) END AS evaluator_tokens,
           sum(weak_output_tokens) FILTER (weak_calls > 0)
               / sum(weak_calls) FILTER (weak_output_tokens IS NOT NULL) AS draft_tokens
    FROM samples WHERE list_contains(?, run_id) GROUP BY run_id"""


def rebuild(results: Results) -> list[str]:
    """Write the database anew, and return a sentence for each run that was left out.

    Raises:
        ConfigError: If it cannot be written; the database from before, and all runs, are as they were.
    """
    folders = {"local": results}
    try:
        with new_database(results.database, RESULTS, VIEWS) as db:
            export = Export(db, folders)
            stored = stored_runs(folders, export.warn)
            place = places(each.run for each in stored)
            known = [
                each.stored
                for members in by_data(stored)
                for each in export.add(members, place[members[0].run.data])
            ]
            for given in all_feedback(known, results):
                export.add_feedback(given)
            export.add_meta("")
            return export.notes
    except (OSError, duckdb.Error) as error:
        raise ConfigError(
            f"The database {results.database} cannot be written ({_first_line(error)}); the "
            "runs are safe. Make room, then type: cowest results"
        ) from error


def connect(results: Results) -> duckdb.DuckDBPyConnection:
    """Open the database for reading.

    Raises:
        ConfigError: If there is none.
    """
    if not results.database.is_file():
        raise ConfigError(
            f"There are no results in {results.root}; make some with cowest demo or cowest run."
        )
    return duckdb.connect(str(results.database), read_only=True)


# --- reading --------------------------------------------------------------------------------------


def stored_runs(folders: Mapping[str, Results], warn: Callable[[str], None]) -> list[Stored]:
    """Every run that can be used, oldest first; of two with the same id that of the first folder.

    Args:
        folders: By their sources, ``local`` and ``reference``.
        warn: Told which files are left out, and why.
    """
    found: dict[str, Stored] = {}
    for source, results in folders.items():
        for run in results.all_runs():
            try:
                require_fields(run)
            except RecordError as error:
                warn(str(error))
            else:
                found.setdefault(run.run_id, Stored(run, results, source))
        for sentence in results.damaged:
            warn(sentence)
    return sorted(found.values(), key=lambda each: (each.run.created, each.run.run_id))


def require_fields(run: Run) -> None:
    """Check what the reader of a run does not, and the tables need.

    Raises:
        RecordError: If something is missing, in a sentence without a path.
    """
    name = f"{printable(run.run_id[:64])}.json"
    if not FILE_NAME.fullmatch(run.run_id):
        raise RecordError(f"{name} is not named by the id of a run.")
    known = run.identity.get("models")
    if not isinstance(known, dict) or not known:
        raise RecordError(f"{name} does not say which models answered.")
    if known.keys() != run.models.keys():
        raise RecordError(f"{name} has other models than its identity.")


def by_data(stored: Iterable[Stored]) -> list[list[Stored]]:
    """Runs of the same data set together; they can be compared, sample by sample."""
    found: dict[str, list[Stored]] = defaultdict(list)
    for each in stored:
        found[each.run.data].append(each)
    return [found[data] for data in sorted(found)]


# --- writing --------------------------------------------------------------------------------------


class Export:
    """Fills the tables of one database.

    Args:
        db: With empty tables.
        folders: The results folders, by source.
        text_length: Longer texts are cut; 0 leaves all texts out, None keeps them whole.
        tick: Called before each run.
    """

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        folders: Mapping[str, Results],
        *,
        text_length: int | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.db = db
        self.folders = folders
        self.text_length = text_length
        self.tick = tick
        self.notes: list[str] = []

    def warn(self, reason: str) -> None:
        """Note what was left out, without naming folders of this machine."""
        logger.debug("%s", reason)
        for folder in self.folders.values():
            reason = reason.replace(f"{folder.root}/", "")
        if len(self.notes) < MOST_NOTES:
            self.notes.append(printable(reason)[:500])
        elif len(self.notes) == MOST_NOTES:
            self.notes.append("There are more such notes, which are not listed.")

    def add(self, members: Sequence[Stored], place: Place) -> list[Measured]:
        """Add the runs of one data set, oldest first, to ``runs``, ``samples`` and ``gains``."""
        read = [found for each in members if (found := self._measured(each, place))]
        copied = self._copy([each.stored for each in read])
        known = [each for each in read if each.run.run_id in copied]
        usage = self._usage([each.run.run_id for each in known])
        newest = {Entry.of(each.run): each for each in known}
        for each in known:
            each.row.update(usage[each.run.run_id], current=newest[Entry.of(each.run)] is each)
        insert(self.db, "runs", [each.row for each in known])
        insert(self.db, "gains", gain_rows(known))
        return known

    def _measured(self, each: Stored, place: Place) -> Measured | None:
        """A run with what is measured of its scores; None, and a note, if they cannot be read."""
        self.tick()
        run = each.run
        wanted = {*comparison.ITEM_COLUMNS, *comparison.price_columns(run)}
        try:
            table = each.results.columns(run, sorted(wanted))
            items = comparison.items(table)
            if not len(items.keys) or np.isinf(items.scores).any():
                raise RecordError(f"Run {run.run_id} has no answers, or infinite scores.")
        except RecordError as error:
            self.warn(str(error))
            return None
        usd, seconds = comparison.prices(run, table)
        card = card_of(run, self.folders.values())
        row = {
            **run_row(run, items, texts=self.text_length != 0),
            "usd_per_1k": usd,
            "seconds_per_1k": seconds,
            "suite": place.suite,
            "domain": place.domain,
            "source": each.source,
            "training": card and card.name,
        }
        return Measured(each, place, items, row, card)

    def _copy(self, several: Sequence[Stored]) -> set[str]:
        """Copy the rows of runs, by id; returns the ids of those that could be read, and notes the others.

        Raises:
            duckdb.Error: If the database cannot be written.
        """
        copied = []
        for batch in _batches(sorted(several, key=lambda each: each.run.run_id)):
            try:
                self._copy_rows(batch)
            except duckdb.Error:  # one of them is broken, or the disk is full
                copied += [each for each in batch if self._copy_one(each)]
            else:
                copied += batch
        return {each.run.run_id for each in copied}

    def _copy_one(self, each: Stored) -> bool:
        try:
            self._copy_rows([each])
        except duckdb.Error as error:
            if _is_readable(each):
                raise
            self.warn(f"The rows of run {each.run.run_id} cannot be read ({_first_line(error)}).")
            return False
        return True

    def _copy_rows(self, several: Sequence[Stored]) -> None:
        """Copy the rows of runs; DuckDB reads them, so no object is made of a row."""
        columns = ", ".join(f"{self._column(name)} AS {name}" for name in TABLES["samples"])
        self.db.execute(
            f"INSERT INTO samples SELECT {columns} FROM read_parquet(?, filename => true) AS given "
            "ORDER BY 1, epoch, sample_id",
            [[str(each.results.rows(each.run)) for each in several]],
        )

    def _column(self, name: str) -> str:
        """How a column of ``samples`` is read."""
        held, longest = f"given.{name}", self.text_length
        if name == "run_id":
            return "parse_filename(given.filename, true)"
        if name == "cluster" and longest == 0:
            return f"left(sha256({held}), {HASH_LENGTH})"
        if name == "cluster":
            return f"left({held}, {NAME_LENGTH})"
        if name in TEXTS and longest == 0:
            return f"CASE WHEN {held} IS NOT NULL THEN 'error' END" if name == "error" else "NULL"
        if name in TEXTS and longest is not None:
            return (
                f"CASE WHEN length({held}) > {longest} THEN left({held}, {longest}) || "
                f"format(' … ({{:,}} characters)', length({held})) ELSE {held} END"
            )
        if TABLES["samples"][name] == "DOUBLE":
            return f"CASE WHEN isfinite({held}) THEN {held} END"
        return held

    def _usage(self, run_ids: Sequence[str]) -> dict[str, TableRow]:
        found = self.db.execute(USAGE, [run_ids])
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        return {row["run_id"]: row | {"coverage": row["n_scored"] / row["n_total"]} for row in rows}

    def add_feedback(self, given: Feedback) -> bool:
        """Add the drafts of feedback to ``influences``; False, and a note, if it cannot be read."""
        try:
            insert(self.db, "influences", influence_rows(given))
        except (ComparisonError, ValueError, TypeError) as error:
            self.warn(f"The feedback {given.drafts.run.run_id} cannot be read ({error}).")
            return False
        return True

    def add_meta(self, command: str) -> None:
        """Say what wrote the database, and what was left out."""
        about = {
            "schema_version": str(SCHEMA_VERSION),
            "id": secrets.token_hex(8),
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
            "cowest_bench": __version__,
            "texts": "no" if self.text_length == 0 else "yes",
            "command": command,
            "notes": json.dumps(self.notes),
        }
        insert(self.db, "meta", [{"key": key, "value": value} for key, value in about.items()])


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _batches(several: Sequence[Stored]) -> list[list[Stored]]:
    """Runs that are copied by one statement: each takes a flush of the disk, and memory."""
    batches: list[list[Stored]] = []
    rows = MOST_ROWS
    for each in several:
        rows += each.run.n_total
        if rows > MOST_ROWS:
            batches.append([])
            rows = each.run.n_total
        batches[-1].append(each)
    return batches


def _is_readable(each: Stored) -> bool:
    with duckdb.connect() as db:
        try:
            db.execute(
                "SELECT max(COLUMNS(*)) FROM read_parquet(?)", [str(each.results.rows(each.run))]
            )
        except duckdb.Error:
            return False
    return True
