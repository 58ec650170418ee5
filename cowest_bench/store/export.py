"""Stored runs as rows of the tables ``runs``, ``samples``, ``gains`` and ``influences``.

``database.py`` writes all runs with it, the leaderboard's snapshot the test runs; so a number is computed
in one place and means the same in both. A run that cannot be used is left out, and a sentence says why.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow
import pyarrow.parquet

from cowest_bench import __version__
from cowest_bench.analysis import contrasts, stats
from cowest_bench.analysis.contrasts import Items
from cowest_bench.errors import ComparisonError, RecordError, printable
from cowest_bench.store import selection
from cowest_bench.store.cards import card_of
from cowest_bench.store.entry import Entry
from cowest_bench.store.feedback_rows import Feedback, influence_rows
from cowest_bench.store.gain_rows import gain_rows
from cowest_bench.store.measured import Measured, Stored, oldest_first
from cowest_bench.store.records import Run, arrow_schema
from cowest_bench.store.results import Results
from cowest_bench.store.schema import SCHEMA_VERSION, TABLES
from cowest_bench.store.suites import FILE_NAME, NAME_LENGTH, Place, shown
from cowest_bench.store.tables import TableRow, insert

logger = logging.getLogger("cowest_bench")

TEXTS = ("question", "gold", "draft", "output", "completions", "answer", "metrics", "error")
MOST_NOTES = 200
MOST_ROWS = 50_000  # that one statement copies, unless a run has more
HASH_LENGTH = 16  # characters of a cluster's hash
LOCAL_OPTIONS = ("data", "include_path")  # folders of a machine

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


# --- reading --------------------------------------------------------------------------------------


def finished(folders: Mapping[str, Results], warn: Callable[[str], None]) -> list[Stored]:
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
        """Add the runs of one data set to ``runs``, ``samples`` and ``gains``."""
        read = {each.run.run_id: self._items(each) for each in members}
        items = {run_id: found for run_id, found in read.items() if found is not None}
        known = self._copy([each for each in members if each.run.run_id in items])
        usage = self._usage([each.run.run_id for each in known])
        newest = {Entry.of(run): run.run_id for run in oldest_first(e.run for e in known)}
        measured = []
        for each in known:
            card = card_of(each.run, self.folders.values())
            row = {
                **run_row(each.run, items[each.run.run_id], texts=self.text_length != 0),
                **usage[each.run.run_id],
                **_prices(each),
                "suite": place.suite,
                "domain": place.domain,
                "current": newest[Entry.of(each.run)] == each.run.run_id,
                "source": each.source,
                "training": card and card.name,
            }
            measured.append(Measured(each, place, items[each.run.run_id], row, card))
        insert(self.db, "runs", [each.row for each in measured])
        insert(self.db, "gains", gain_rows(measured))
        return measured

    def _items(self, each: Stored) -> Items | None:
        """A run's scores; None, and a note, if they cannot be read."""
        self.tick()
        run_id = each.run.run_id
        try:
            _require_columns(each)
            items = selection.items(each.results, each.run)
            if not len(items.keys) or np.isinf(items.scores).any():
                raise RecordError(f"Run {run_id} has no answers, or infinite scores.")
        except ComparisonError as error:
            self.warn(str(error))
        except (OSError, ValueError) as error:  # Arrow's are ValueErrors
            self.warn(f"The rows of run {run_id} cannot be read ({_first_line(error)}).")
        else:
            return items
        return None

    def _copy(self, several: Sequence[Stored]) -> list[Stored]:
        """Copy the rows of runs, by id; returns those that could be read, and notes the others.

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
        return copied

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
            [[str(_rows_of(each)) for each in several]],
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


def _rows_of(each: Stored) -> Path:
    return each.results.runs / f"{each.run.run_id}.parquet"


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
            db.execute("SELECT max(COLUMNS(*)) FROM read_parquet(?)", [str(_rows_of(each))])
        except duckdb.Error:
            return False
    return True


def _require_columns(each: Stored) -> None:
    """Refuse rows with another schema."""
    given, expected = pyarrow.parquet.read_schema(_rows_of(each)), arrow_schema()
    for name in TABLES["samples"]:
        if name not in given.names or given.field(name).type != expected.field(name).type:
            raise RecordError(
                f"The rows of run {each.run.run_id} have no column {name} of this version; remove "
                "the run and run it again."
            )


# --- runs -----------------------------------------------------------------------------------------


def run_row(run: Run, items: Items, *, texts: bool = True) -> TableRow:
    """What the table ``runs`` says of a run by itself; its score has a clustered 95% interval."""
    own = contrasts.pair(items, items)
    score = stats.mean_interval(own.ours[own.scored], own.clusters[own.scored])
    copied = ("run_id", "score_id", "split", "data", "seed", "epochs", "graded", "attempts")
    return {
        **{name: getattr(run, name) for name in (*copied, "seconds", "created", "versions")},
        **{name: _shown(getattr(run, name)) for name in ("task", "system", "format", "control")},
        **{role: shown(spec.base_label) for role, spec in run.models.items()},
        **{f"{role}_checkpoint": shown(spec.label) for role, spec in run.models.items()},
        "log": shown(run.log),
        "entry": Entry.of(run).id,
        "options": {key: run.options[key] for key in run.options if key not in LOCAL_OPTIONS},
        "n_samples": len(items.keys),
        "score": score.value,
        "low": score.low,
        "high": score.high,
        "metrics": {name: contrasts.finite(value) for name, value in run.metrics.items()},
        "identity": run.identity if texts else _without_prompts(run.identity),
        "prompts": _prompts(run) if texts else None,
    }


def _shown(name: str | None) -> str | None:
    return name and shown(name)


def _prompts(run: Run) -> object:
    """The templates that its models were asked with, if it has any of its own."""
    parts = (part for part in run.identity.values() if isinstance(part, dict))
    return next((part["prompts"] for part in parts if "prompts" in part), None)


def _without_prompts(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: part[key] for key in part if key != "prompts"}
        if isinstance(part, dict)
        else part
        for name, part in identity.items()
    }


def _prices(each: Stored) -> TableRow:
    if not any(role in each.run.models for role in selection.ANSWERING):
        return {}
    found = selection.profile(each.results, each.run, ())
    return {"usd_per_1k": found.usd_per_1k, "seconds_per_1k": found.seconds_per_1k}
