"""The leaderboard's snapshot: one immutable DuckDB file with everything that the app shows.

``publish`` reads finished test runs, computes all statistics once, and replaces the file as a whole.
Readers of the old file are not disturbed, and nobody opens a file that a run writes to. Its tables are
``store.schema.TABLES``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

import duckdb

from cowest_bench.board.entries import entry_rows
from cowest_bench.board.gates import baseline_rows, blessed_baselines, gate_rows
from cowest_bench.board.systems import system_rows
from cowest_bench.board.trainings import step_rows, training_row
from cowest_bench.config import Progress
from cowest_bench.errors import ConfigError
from cowest_bench.store import Results
from cowest_bench.store.cards import Card, Feedback, distinct_feedback, feedback_of
from cowest_bench.store.database import Export, by_data, stored_runs
from cowest_bench.store.results import Stored
from cowest_bench.store.rows import Measured
from cowest_bench.store.schema import TABLES, VIEWS
from cowest_bench.store.suites import Place, places
from cowest_bench.store.tables import insert, new_database

TEXT_LENGTH = 20_000  # characters of a text that are kept
#: Without the drafts of feedback runs, which a snapshot does not have.
SNAPSHOT_VIEWS = {name: VIEWS[name] for name in ("leaderboard", "helped_hurt")}


def publish(
    results: Results,
    target: Path,
    *,
    submitted: Path | None = None,
    baselines: Path | None = None,
    texts: bool = True,
    command: str = "",
    progress: Progress | None = None,
) -> Path:
    """Write a snapshot of all finished test runs, and return its path.

    What cannot be read is left out, and a sentence in the snapshot says so (``notes``).

    Args:
        results: Where the runs are.
        target: The file to write or replace.
        submitted: Folder of the reference results; if a run is in both, the local one counts.
        baselines: Folder of the blessed baselines.
        texts: Whether to keep questions, answers, drafts, prompts and error messages.
        command: What made it, for the record.
        progress: Told how many runs are done.

    Raises:
        ConfigError: If the file cannot be written; an older one stays as it was.
    """
    folders = {"local": results}
    if submitted is not None:
        folders["reference"] = Results(submitted)
    try:
        with new_database(target, TABLES, SNAPSHOT_VIEWS) as db:
            export = Export(db, folders, text_length=TEXT_LENGTH if texts else 0)
            stored = stored_runs(folders, export.warn)
            if progress:
                total = sum(each.run.split == "test" for each in stored)
                done = count()
                export.tick = lambda: progress("publish", next(done), total)
            _write(export, stored, baselines)
            export.add_meta(command)
    except (OSError, duckdb.Error) as error:
        raise ConfigError(
            f"The snapshot {target} cannot be written ({str(error).splitlines()[0]}); make room, or "
            "choose another place with --to."
        ) from error
    return target


def notes(snapshot: Path) -> list[str]:
    """What a snapshot says was left out, a sentence each."""
    with duckdb.connect(str(snapshot), read_only=True) as db:
        found = db.execute("SELECT value FROM meta WHERE key = 'notes'").fetchall()
    return [note for (text,) in found for note in json.loads(text)]


def _write(export: Export, stored: Sequence[Stored], baselines: Path | None) -> None:
    """Fill all tables but ``meta``."""
    tests = [each for each in stored if each.run.split == "test"]
    place = places(each.run for each in tests)
    blessed = blessed_baselines(baselines, export.warn) if baselines else []
    insert(export.db, "baselines", baseline_rows(blessed, place))
    trained: dict[str, tuple[Card, Measured]] = {}
    known = []
    for members in _by_suite(tests, place):
        measured = [
            each for same in by_data(members) for each in export.add(same, place[same[0].run.data])
        ]
        known += [each.run for each in measured]
        if measured:
            insert(export.db, "entries", entry_rows(measured))
            insert(export.db, "gates", gate_rows(measured, blessed, export.warn))
        for each in sorted(measured, key=_stands_for_its_training):
            if each.card:
                trained.setdefault(each.card.name, (each.card, each))
    insert(export.db, "systems", system_rows(known))
    _add_trainings(export, trained.values(), {each.run.run_id: each for each in stored})


def _by_suite(tests: Sequence[Stored], place: Mapping[str, Place]) -> list[list[Stored]]:
    found: dict[str, list[Stored]] = defaultdict(list)
    for each in tests:
        found[place[each.run.data].suite].append(each)
    return [found[suite] for suite in sorted(found)]


def _stands_for_its_training(each: Measured) -> tuple[bool, object]:
    """Sorts the runs of a trained model: the first one stands for its training, controls are last."""
    return each.run.control is not None, each.run.created


def _add_trainings(
    export: Export, trained: Iterable[tuple[Card, Measured]], stored: Mapping[str, Stored]
) -> None:
    """Fill the tables of the trainings, and the influence of the drafts that they learned from."""
    found: list[Feedback] = []
    for card, each in trained:
        feedback = feedback_of(card, stored)
        insert(export.db, "trainings", [training_row(card, each, feedback)])
        insert(export.db, "training_steps", step_rows(card))
        found += [feedback] if feedback else []
    for given in distinct_feedback(found):
        export.add_feedback(given)
