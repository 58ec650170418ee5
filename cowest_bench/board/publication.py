"""Fills a snapshot's tables: reads runs that can be read, and says of the others why not."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow
import pyarrow.parquet

from cowest_bench import __version__
from cowest_bench.board import entries, standings, trainings
from cowest_bench.board.snapshot import SCHEMA_VERSION, TABLES, TEXT_LENGTH, Progress
from cowest_bench.board.standings import Measured, Place, Row, Stored
from cowest_bench.errors import ComparisonError, ConfigError, printable
from cowest_bench.gate import baseline
from cowest_bench.gate.baseline import NAME, Baseline
from cowest_bench.store import Results, Run, arrow_schema, selection
from cowest_bench.systems import find_system

BATCH = 50_000  # rows that are made in Python at a time
JSON_LENGTH = 100_000  # characters of a run's metadata that are kept
MOST_NOTES = 200
LARGEST = {"INTEGER": 2**31 - 1, "BIGINT": 2**63 - 1}
CLUSTER = {True: standings.NAME_LENGTH, False: 16}  # characters of a label, or of its hash
TEXTS = ("question", "gold", "draft", "output", "answer", "error")

#: What the rows of a run add up to; a sum of which a part is not known is not known.
USAGE = """
    SELECT count(*) AS n_total, count(score) AS n_scored,
           sum(weak_calls) AS weak_calls, sum(strong_calls) AS strong_calls,
           CASE WHEN count(weak_input_tokens + weak_output_tokens) = count(*)
                THEN sum(weak_input_tokens + weak_output_tokens) END AS weak_tokens,
           CASE WHEN count(strong_input_tokens + strong_output_tokens) = count(*)
                THEN sum(strong_input_tokens + strong_output_tokens) END AS strong_tokens,
           sum(weak_output_tokens) FILTER (weak_calls > 0)
               / sum(weak_calls) FILTER (weak_output_tokens IS NOT NULL) AS draft_tokens
    FROM samples WHERE run_id = ?"""


class Publication:
    """One snapshot while it is written.

    Args:
        db: With empty tables.
        results: Where the runs are.
        submitted: Folder of the reference results.
        texts: Whether texts are kept.
        progress: Told how many runs are done.
    """

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        results: Results,
        submitted: Path | None,
        texts: bool,
        progress: Progress | None,
    ) -> None:
        self.db = db
        self.folders = {"local": results}
        if submitted is not None:
            self.folders["reference"] = Results(submitted)
        self.texts = texts
        self.progress = progress or (lambda what, done, total: None)
        self.notes: list[str] = []
        self.done = 0

    def write(self, baselines: Path | None, command: str) -> None:
        """Fill all tables."""
        stored = finished(self.folders, self.warn)
        tests = [each for each in stored if each.run.split == "test"]
        places = standings.places(each.run for each in tests)
        blessed = self.blessed(baselines) if baselines else []
        insert(self.db, "baselines", standings.baseline_rows(blessed, places))
        trained: dict[str, tuple[trainings.Training, Measured]] = {}
        by_suite: dict[str, list[Stored]] = defaultdict(list)
        for each in sorted(tests, key=lambda each: each.run.run_id):
            by_suite[places[each.run.data].suite].append(each)
        for _, mine in sorted(by_suite.items()):
            members = [*self.measured(mine, places, len(tests))]
            if members:
                self.suite(members, blessed, trained)
        self.trainings(trained, stored)
        about = {
            "schema_version": str(SCHEMA_VERSION),
            "id": secrets.token_hex(8),
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
            "cowest_bench": __version__,
            "texts": "yes" if self.texts else "no",
            "command": command,
            "notes": json.dumps(self.notes),
        }
        insert(self.db, "meta", [{"key": key, "value": value} for key, value in about.items()])

    def warn(self, sentence: str) -> None:
        """Say in the snapshot what was left out, without naming folders of this machine."""
        for folder in self.folders.values():
            sentence = sentence.replace(f"{folder.root}/", "")
        if len(self.notes) < MOST_NOTES:
            self.notes.append(printable(sentence)[:500])
        elif len(self.notes) == MOST_NOTES:
            self.notes.append("There are more such notes, which are not listed.")

    # --- what there is ---

    def blessed(self, folder: Path) -> list[Baseline]:
        """The blessed baselines that can be read."""
        found = []
        for path in sorted(folder.glob("*.json")):
            try:
                found.append(baseline.load(path))
            except ComparisonError:
                self.warn(f"The baseline {path.name} is none of this version; it was left out.")
        return found

    def measured(
        self, stored: Sequence[Stored], places: Mapping[str, Place], total: int
    ) -> Iterator[Measured]:
        """Put the rows of runs into the table, and read from there what they took."""
        for each in stored:
            self.progress("publish", self.done, total)
            self.done += 1
            run_id = each.run.run_id
            try:
                self.check_rows(each)
                items = selection.items(each.results, each.run)
                if not len(items.keys) or np.isinf(items.scores).any():
                    raise ComparisonError(f"Run {run_id} has no answers, or infinite scores.")
                profile = selection.profile(each.results, each.run, ())
                self.samples(each)
            except ComparisonError as error:
                self.warn(f"{error} It was left out.")
                continue
            except (OSError, duckdb.Error, ValueError) as error:
                reason = str(error).splitlines()[0]
                self.warn(f"The rows of run {run_id} cannot be read ({reason}). It was left out.")
                continue
            query = self.db.execute(USAGE, [run_id])
            names = [column[0] for column in query.description]
            usage = dict(zip(names, query.fetchall()[0], strict=True))
            usage |= {name: getattr(profile, name) for name in ("usd_per_1k", "seconds_per_1k")}
            place, drafted = places[each.run.data], usage.pop("draft_tokens")
            yield Measured(each, place.suite, place.domain, items, usage, drafted)

    def check_rows(self, each: Stored) -> None:
        """Refuse rows of another form, of which nothing else is to be thought of then."""
        path = each.results.runs / f"{each.run.run_id}.parquet"
        given, expected = pyarrow.parquet.read_schema(path), arrow_schema()
        for name in TABLES["samples"]:
            if name not in given.names or given.field(name).type != expected.field(name).type:
                raise ComparisonError(
                    f"The rows of run {each.run.run_id} have no column {name} of this version; run "
                    "it again."
                )

    def samples(self, each: Stored) -> None:
        """Copy the rows of a run; DuckDB reads them, so that no object is made of a row."""
        columns = ", ".join(f"{self.column(name)} AS {name}" for name in TABLES["samples"])
        path = each.results.runs / f"{each.run.run_id}.parquet"
        self.db.execute(
            f"INSERT INTO samples SELECT {columns} FROM read_parquet($path) AS given "
            "ORDER BY epoch, sample_id",
            {"run_id": each.run.run_id, "path": str(path)},
        )

    def column(self, name: str) -> str:
        """How a column of ``samples`` is read."""
        held = f"given.{name}"
        if name == "run_id":
            return "$run_id"
        if name in TEXTS and not self.texts:
            return f"CASE WHEN {held} IS NOT NULL THEN 'error' END" if name == "error" else "NULL"
        if name in TEXTS:
            return (
                f"CASE WHEN length({held}) > {TEXT_LENGTH} THEN left({held}, {TEXT_LENGTH}) || "
                f"format(' … ({{:,}} characters)', length({held})) ELSE {held} END"
            )
        if name == "cluster":
            return f"left({held if self.texts else f'sha256({held})'}, {CLUSTER[self.texts]})"
        if TABLES["samples"][name] == "DOUBLE":
            return f"CASE WHEN isfinite({held}) THEN {held} END"
        return held

    # --- what is made of it ---

    def suite(
        self,
        members: Sequence[Measured],
        blessed: Sequence[Baseline],
        trained: dict[str, tuple[trainings.Training, Measured]],
    ) -> None:
        """The rows of one suite in all tables but those of the trainings, which are only noted."""
        runs = standings.run_rows(members, self.texts)
        insert(self.db, "entries", entries.entry_rows(members, runs))
        insert(self.db, "gates", standings.gate_rows(members, blessed, self.warn))
        for each, row in zip(members, runs, strict=True):
            found = trainings.training(each.run, [*self.folders.values()])
            if found:
                row["training"] = found.name
                first = trained.get(found.name)
                if first is None or _order(each.run) < _order(first[1].run):
                    trained[found.name] = (found, each)
        insert(self.db, "runs", runs)
        about = ("suite", "domain", "run_id", "entry", "system")
        lengths = [
            {name: row[name] for name in about} | {"mean_tokens": each.draft_tokens}
            for each, row in zip(members, runs, strict=True)
            if each.run.weak and each.run.strong and each.draft_tokens is not None
        ]
        insert(self.db, "draft_lengths", lengths)

    def trainings(
        self, trained: Mapping[str, tuple[trainings.Training, Measured]], stored: Sequence[Stored]
    ) -> None:
        """The tables of the trainings."""
        folders = [*self.folders.values()]
        for found, each in trained.values():
            insert(self.db, "trainings", [trainings.training_row(found, each)])
            insert(self.db, "training_steps", trainings.step_rows(found))
            try:
                given = trainings.feedback(each.run, found, stored, folders)
                if given:
                    insert(self.db, "influences", trainings.influence_rows(found.name, given))
            except (ComparisonError, ValueError, TypeError) as error:
                self.warn(
                    f"The feedback of {found.name} cannot be read ({error}); it was left out."
                )


def _order(run: Run) -> tuple[bool, datetime]:
    """Which of the runs with a trained model stands for its training: the first, controls last."""
    return run.control is not None, run.created


# --- reading --------------------------------------------------------------------------------------


def finished(folders: Mapping[str, Results], warn: Callable[[str], None]) -> list[Stored]:
    """Every run that can be read, oldest first; of two with the same id that of the first folder.

    Args:
        folders: By their sources, ``local`` and ``reference``.
        warn: Told which files are no runs.
    """
    found: dict[str, Stored] = {}
    for source, results in folders.items():
        for path in sorted(results.runs.glob("*.json")):
            try:
                run = readable(results, path.stem)
            except ConfigError as error:
                warn(f"{error} It was left out.")
            else:
                found.setdefault(run.run_id, Stored(run, results, source))
    return sorted(found.values(), key=lambda each: (each.run.created, each.run.run_id))


def readable(results: Results, run_id: str) -> Run:
    """A run whose fields are such that its statistics can be computed.

    Raises:
        ConfigError: If it is none, in a sentence without the folder's path.
    """
    try:
        run = results.find(run_id)
    except (ConfigError, OSError, RecursionError):
        run = None
    if run is None:
        raise ConfigError(f"{run_id}.json is no run of this version.")
    if run.run_id != run_id or not NAME.fullmatch(run_id):
        raise ConfigError(f"{run_id}.json says that it is the run {run.run_id}.")
    if run.created.tzinfo is None:
        raise ConfigError(f"{run_id}.json does not say in which time zone it was made.")
    models = run.identity.get("models")
    if not isinstance(models, dict):
        raise ConfigError(f"{run_id}.json does not say which data and models it is about.")
    roles = ("evaluator",) if run.system == "evaluator" else find_system(run.system).roles
    if roles is None:
        raise ConfigError(f"{run_id}.json is of a system that is not known, {run.system}.")
    if run.split != "test" and run.system == "evaluator":
        return run
    if any(role not in run.models or role not in models for role in roles):
        raise ConfigError(f"{run_id}.json lacks a model of the system {run.system}.")
    return run


# --- writing --------------------------------------------------------------------------------------


def insert(db: duckdb.DuckDBPyConnection, table: str, rows: Iterable[Row]) -> None:
    """Add rows to a table; what they lack, and numbers that are none, is NULL."""
    columns = TABLES[table]
    kinds = {"DOUBLE": "float64", "INTEGER": "int64", "BIGINT": "int64", "BOOLEAN": "bool_"}
    waiting = iter(rows)
    while batch := [*islice(waiting, BATCH)]:
        arrays = {}
        for name, declared in columns.items():
            kind = declared.split()[0]
            zoned = pyarrow.timestamp("us", "UTC") if kind == "TIMESTAMPTZ" else None
            arrays[name] = pyarrow.array(
                [cell(row.get(name), kind) for row in batch],
                zoned or getattr(pyarrow, kinds.get(kind, "string"))(),
            )
        incoming = pyarrow.table(arrays)
        db.register("incoming", incoming)
        db.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
        db.unregister("incoming")


def cell(value: Any, kind: str) -> Any:
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
