"""Stored runs as rows of the tables ``runs``, ``samples``, ``gains`` and ``influences``.

``database.py`` writes all runs with it, the leaderboard's snapshot the test runs; so a number is computed
in one place and means the same in both. A run that cannot be used is left out, and a sentence says why.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import duckdb
import numpy as np
import pyarrow
import pyarrow.parquet

from cowest_bench import __version__
from cowest_bench.analysis import contrasts, stats
from cowest_bench.analysis.contrasts import Contrast, Items
from cowest_bench.analysis.gains import gain
from cowest_bench.config import Role
from cowest_bench.errors import ComparisonError, ConfigError, RecordError, printable
from cowest_bench.store import selection
from cowest_bench.store.cards import Card, card_of
from cowest_bench.store.entry import Entry
from cowest_bench.store.records import Run, SampleScore, arrow_schema
from cowest_bench.store.results import Results
from cowest_bench.store.schema import ALPHA, SCHEMA_VERSION, TABLES, TOLERANCE
from cowest_bench.store.suites import FILE_NAME, NAME_LENGTH, Place, shown
from cowest_bench.store.tables import TableRow, insert

if TYPE_CHECKING:
    from cowest_bench.lab.feedback import Signal

logger = logging.getLogger("cowest_bench")

TEXTS = ("question", "gold", "draft", "output", "completions", "answer", "metrics", "error")
MOST_NOTES = 200
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


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished run, and where it is.

    Attributes:
        run: The run.
        results: The folder that its rows are in.
        source: ``local`` or ``reference``.
    """

    run: Run
    results: Results
    source: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A run with what was measured.

    Attributes:
        stored: The run, and where it is.
        place: Where its data set is shown.
        items: Its samples with their scores.
        row: Its row in the table ``runs``.
        card: Of the training that made its weak model.
    """

    stored: Stored
    place: Place
    items: Items
    row: TableRow
    card: Card | None

    @property
    def run(self) -> Run:
        """The run."""
        return self.stored.run


@dataclass(frozen=True, slots=True)
class Feedback:
    """The runs that preference pairs come from.

    Attributes:
        drafts: Answers with drafts.
        alone: Answers of the strong model to the same samples.
        judged: The evaluator's marks of both, if there are any.
    """

    drafts: Stored
    alone: Stored
    judged: Stored | None = None


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
                require_usable(run)
            except RecordError as error:
                warn(str(error))
            else:
                found.setdefault(run.run_id, Stored(run, results, source))
        for sentence in results.damaged:
            warn(sentence)
    return sorted(found.values(), key=lambda each: (each.run.created, each.run.run_id))


def require_usable(run: Run) -> None:
    """Check what the reader of a run does not, and the tables need.

    Raises:
        RecordError: If something is missing, in a sentence without a path.
    """
    name = f"{printable(run.run_id[:64])}.json"
    if not FILE_NAME.fullmatch(run.run_id):
        raise RecordError(f"{name} is not named by the id of a run.")
    if run.created.tzinfo is None:
        raise RecordError(f"{name} does not say in which time zone it was made.")
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
            self.notes.append(f"{printable(reason)[:500]} It was left out.")
        elif len(self.notes) == MOST_NOTES:
            self.notes.append("There are more such notes, which are not listed.")

    def add(self, members: Sequence[Stored], place: Place) -> list[Measured]:
        """Add the runs of one data set to ``runs``, ``samples`` and ``gains``."""
        members = sorted(members, key=lambda each: each.run.run_id)
        items = {each.run.run_id: read for each in members if (read := self._read(each))}
        known = [each for each in members if each.run.run_id in items]
        usage = self._usage([*items])
        newest = {Entry.of(run): run.run_id for run in _oldest_first(e.run for e in known)}
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

    def _read(self, each: Stored) -> Items | None:
        """Copy a run's rows and read its scores; None, and a note, if they cannot be read."""
        self.tick()
        run_id = each.run.run_id
        try:
            _require_columns(each)
            items = selection.items(each.results, each.run)
            if not len(items.keys) or np.isinf(items.scores).any():
                raise RecordError(f"Run {run_id} has no answers, or infinite scores.")
            self._copy(each)
        except ComparisonError as error:
            self.warn(str(error))
        except (OSError, ValueError) as error:  # Arrow's are ValueErrors
            self.warn(f"The rows of run {run_id} cannot be read ({_first_line(error)}).")
        except duckdb.Error as error:
            if _is_readable(each):  # then it is the database that cannot be written
                raise
            self.warn(f"The rows of run {run_id} cannot be read ({_first_line(error)}).")
        else:
            return items
        return None

    def _copy(self, each: Stored) -> None:
        """Copy a run's rows; DuckDB reads them, so no object is made of a row."""
        columns = ", ".join(f"{self._column(name)} AS {name}" for name in TABLES["samples"])
        path = each.results.runs / f"{each.run.run_id}.parquet"
        self.db.execute(
            f"INSERT INTO samples SELECT {columns} FROM read_parquet($path) AS given "
            "ORDER BY epoch, sample_id",
            {"run_id": each.run.run_id, "path": str(path)},
        )

    def _column(self, name: str) -> str:
        """How a column of ``samples`` is read."""
        held, longest = f"given.{name}", self.text_length
        if name == "run_id":
            return "$run_id"
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


def _oldest_first(runs: Iterable[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: (run.created, run.run_id))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _is_readable(each: Stored) -> bool:
    path = each.results.runs / f"{each.run.run_id}.parquet"
    with duckdb.connect() as db:
        try:
            db.execute("SELECT max(COLUMNS(*)) FROM read_parquet(?)", [str(path)])
        except duckdb.Error:
            return False
    return True


def _require_columns(each: Stored) -> None:
    """Refuse rows with another schema."""
    path = each.results.runs / f"{each.run.run_id}.parquet"
    given, expected = pyarrow.parquet.read_schema(path), arrow_schema()
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


# --- gains ----------------------------------------------------------------------------------------


def gain_rows(members: Sequence[Measured]) -> Iterator[TableRow]:
    """The table ``gains``, from runs of the same data set."""
    for each in members:
        if each.run.compared_with:
            singles = singles_of(each, members)
            found = {name: [one.items] if one else None for name, one in singles.items()}
            runs = {f"{_role(e.run)}_run": e.run.run_id for e in singles.values() if e}
            strong = strong_single(singles)
            yield {"run_id": each.run.run_id, **runs, **gain_columns([each.items], found, strong)}


def singles_of(each: Measured, members: Sequence[Measured]) -> dict[str, Measured | None]:
    """The runs in which a run's models answer the same samples alone, by system; None if not run."""
    known = {other.run.run_id: other for other in members if other.run.data == each.run.data}
    runs = _oldest_first(other.run for other in known.values())
    return {
        name: known[found.run_id] if (found := alone(each.run, name, runs)) else None
        for name in each.run.compared_with
    }


def alone(run: Run, single: str, runs: Sequence[Run]) -> Run | None:
    """The run of a single system that has a run's model (``selection.alone``)."""
    return selection.alone(run, cast(Role, single), runs)


def _role(run: Run) -> Role:
    """Of the only model of a single system."""
    (role,) = run.models
    return role


def strong_single(singles: Mapping[str, Measured | None]) -> str | None:
    """Name of the system in which the strong model answers alone."""
    return next((n for n, each in singles.items() if each and _role(each.run) == "strong"), None)


def gain_columns(
    ours: Sequence[Items], singles: Mapping[str, Sequence[Items] | None], strong: str | None
) -> TableRow:
    """The columns ``GAIN`` of a system over one or several data sets.

    Args:
        ours: Its items, one for each data set.
        singles: Those of the systems it is compared with, in the same order; None if not run.
        strong: The one of these in which the strong model answers.
    """
    over = partial(gain, ours, margin=TOLERANCE, alpha=ALPHA)
    known = {name: items for name, items in singles.items() if items is not None}
    best = over(known) if len(known) == len(singles) else None
    row: TableRow = {}
    if best:
        row |= {"best_single": best.best, **_difference("best", best.contrast)}
    if strong in known:
        # The weak model's run may be missing, or share no scored sample.
        by_strong = best or over({strong: known[strong]})
        if by_strong:
            contrast = by_strong.over[strong]
            counts = ("helped", "hurt", "both_right", "both_wrong", "not_scored")
            row |= {name: getattr(contrast, name) for name in counts}
            row |= _difference("strong", contrast)
    return row


def _difference(over: str, found: Contrast) -> TableRow:
    value, low, high = found.difference
    return {
        f"over_{over}": value,
        f"over_{over}_low": low,
        f"over_{over}_high": high,
        f"over_{over}_p": found.p,
        f"over_{over}_verdict": str(found.verdict),
        f"over_{over}_detectable": found.detectable,
        f"over_{over}_needed": found.needed,
    }


# --- feedback -------------------------------------------------------------------------------------


def feedback_of(card: Card, stored: Mapping[str, Stored]) -> Feedback | None:
    """The feedback that a training's card names, if its runs are stored (by id)."""
    drafts, without, judged = (
        stored.get(card.feedback.get(name, "")) for name in ("drafts", "alone", "judged")
    )
    return Feedback(drafts, without, judged) if drafts and without else None


def all_feedback(stored: Sequence[Stored], cards: Iterable[Card]) -> list[Feedback]:
    """The feedback that cards name, and feedback that no training has used yet; each once."""
    by_id = {each.run.run_id: each for each in stored}
    named = [given for card in cards if (given := feedback_of(card, by_id))]
    return distinct_feedback([*named, *filter(None, (_unused(each, stored) for each in stored))])


def distinct_feedback(several: Iterable[Feedback]) -> list[Feedback]:
    """One for each run of drafts, with the evaluator's marks if there are any."""
    found: dict[str, Feedback] = {}
    for given in sorted(several, key=lambda given: given.judged is None):
        found.setdefault(given.drafts.run.run_id, given)
    return [*found.values()]


def _unused(each: Stored, stored: Sequence[Stored]) -> Feedback | None:
    """A feedback run with the newest run of its strong model alone that was graded alike."""
    if each.run.split != "feedback" or not each.run.compared_with:
        return None
    known = {e.run.run_id: e for e in stored if e.run.graded == each.run.graded}
    runs = [e.run for e in known.values()]
    singles = (alone(each.run, name, runs) for name in each.run.compared_with)
    strong = next((run for run in singles if run and _role(run) == "strong"), None)
    return Feedback(each, known[strong.run_id]) if strong else None


def influence_rows(given: Feedback) -> Iterator[TableRow]:
    """Δ of every scored draft, by every signal there is, as the method computes it.

    Raises:
        ComparisonError: If the rows of a run cannot be read.
    """
    from cowest_bench.lab.feedback import influence

    without = _scores(given.alone)
    sides: list[tuple[Signal, Stored]] = [("metric", given.drafts), ("logprob", given.drafts)]
    if given.judged:
        sides.append(("evaluator", given.judged))
    for signal, of in sides:
        by_epoch: dict[int, list[SampleScore]] = defaultdict(list)
        for row in _scores(of):
            by_epoch[row.epoch].append(row)
        for epoch, rows in sorted(by_epoch.items()):
            with suppress(ConfigError):  # no log-probabilities were recorded
                for candidate in influence(rows, without, signal):
                    yield {
                        "run_id": given.drafts.run.run_id,
                        "signal": signal,
                        "sample_id": candidate.sample_id,
                        "epoch": epoch,
                        "delta": candidate.influence,
                    }


def _scores(each: Stored) -> list[SampleScore]:
    """A run's rows with the columns that influence is computed from."""
    names = ("sample_id", "epoch", "draft", "score", "gold_logprob")
    blank: TableRow = {"run_id": each.run.run_id, "cluster": None, "question": "", "gold": ""}
    rows = each.results.columns(each.run, names).to_pylist()
    return [SampleScore(**blank, **row) for row in rows]
