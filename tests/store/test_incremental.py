"""A database that is written again and again is the one that is made anew."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cowest_bench.board.snapshot import publish
from cowest_bench.gate import baseline
from cowest_bench.store import Results, Run, database
from cowest_bench.store.schema import BOARD, RESULTS
from tests.stored import at, damage, random_scores, right, store, tuned

Tables = dict[str, list[Any]]


def contents(path: Path, tables: Mapping[str, Any]) -> Tables:
    """All rows of all tables; of ``meta`` without what is new each time."""
    with duckdb.connect(str(path), read_only=True) as db:
        found = {table: sorted(map(repr, db.sql(f"FROM {table}").fetchall())) for table in tables}
        told = db.sql("FROM meta WHERE key NOT IN ('id', 'published')").fetchall()
    return found | {"meta": sorted(map(repr, told))}


def change(results: Results, what: str, number: int) -> None:
    """Something that happens to a results folder between two commands."""
    known = sorted(results.runs.glob("*.json"))
    some = known[number % len(known)] if known else None
    given: dict[str, Any] = {"domain": ("medical", "ethics")[number % 2], "created": at(number)}
    match what:
        case "collab" | "weak" | "strong":
            scores = random_scores(12, 0.5, number)
            store(results, scores, system=what, seed=number, **given)
        case "newer data":
            store(results, right(5, 12), system="weak", data=f"newer-{number}", **given)
        case "training" if not (results.models / "dpo-1").exists():
            tuned(results, 12)
        case "no card":
            (results.models / "dpo-1" / "card.json").unlink(missing_ok=True)
        case "blessed":
            run = next((run for run in results.all_runs() if run.split == "test"), None)
            if run:
                scored = baseline.scored(results, run)
                baseline.bless(f"b{number}", [scored], results.root / "baselines")
        case "scored again" if some:
            run = results.find(some.stem)
            if run:
                results.write(run, results.samples(run)[::-1])
        case "removed" if some:
            some.unlink()
        case "damaged" if some:
            damage(some.with_suffix(".parquet"))


CHANGES = (
    *("collab", "weak", "strong", "newer data", "training", "no card", "blessed"),
    *("scored again", "removed", "damaged"),
)


@settings(max_examples=5)
@given(st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 5)), min_size=2, max_size=6))
@example(
    [("training", 0), ("collab", 1), ("weak", 1), ("blessed", 0), ("strong", 3), ("no card", 0)]
)
@example([("collab", 0), ("weak", 2), ("newer data", 2), ("damaged", 0), ("scored again", 1)])
def test_a_database_with_new_runs_is_the_one_made_anew(changes: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        results, fresh = Results(folder), Results(folder)
        results.prepare()
        board, new_board = (results.root / f"{name}.duckdb" for name in ("board", "new-board"))
        fresh.database = results.root / "new.duckdb"
        (results.root / "baselines").mkdir()
        for what, number in changes:
            change(results, what, number)
            database.rebuild(Results(folder))
            publish(Results(folder), board, baselines=results.root / "baselines")
        database.rebuild(fresh)
        publish(fresh, new_board, baselines=results.root / "baselines")
        assert contents(results.database, RESULTS) == contents(fresh.database, RESULTS)
        assert contents(board, RESULTS | BOARD) == contents(new_board, RESULTS | BOARD)


def test_only_what_is_new_is_read(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    board = results.root / "board.duckdb"
    for domain in ("medical", "ethics"):
        for system in ("weak", "strong", "collab"):
            store(results, right(5, 12), system=system, domain=domain)
    database.rebuild(results)
    publish(results, board)
    new = store(results, right(6, 12), created=at(1), seed=1)
    read: list[str] = []
    columns = Results.columns

    def noted(self: Results, run: Run, names: Sequence[str] | None = None) -> Any:
        read.append(run.run_id)
        return columns(self, run, names)

    monkeypatch.setattr(Results, "columns", noted)
    again = Results(results.root)
    medical = {run.run_id for run in again.all_runs() if run.domain == "medical"}
    database.rebuild(again)
    assert new.run_id in read and len(read) <= 3
    publish(again, board)
    assert {*read} <= medical
    read.clear()
    database.rebuild(again)
    publish(again, board)
    assert read == []


def test_a_removed_run_leaves_no_text_in_the_file(results: Results) -> None:
    row = {"output": ["TO BE FORGOTTEN"] * 12}
    gone, kept = (store(results, right(5, 12), row=row, seed=seed) for seed in (0, 1))
    board = publish(results, results.root / "board.duckdb")
    assert b"TO BE FORGOTTEN" in board.read_bytes()
    store(results, right(5, 12), system="strong")
    for run in (gone, kept):
        (results.runs / f"{run.run_id}.json").unlink()
    assert b"TO BE FORGOTTEN" not in publish(results, board).read_bytes()


def test_rows_that_went_bad_unnoticed_are_named_when_they_are_needed(results: Results) -> None:
    weak, strong = (store(results, right(5, 12), system=name) for name in ("weak", "strong"))
    database.rebuild(results)
    path = results.rows(weak)
    times = path.stat()
    damage(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = Results(results.root)
    assert database.rebuild(again) == []
    collab = store(results, right(7, 12))
    (note,) = database.rebuild(again)
    assert weak.run_id in note
    with duckdb.connect(str(results.database), read_only=True) as db:
        found = {run_id for (run_id,) in db.execute("SELECT run_id FROM runs").fetchall()}
    assert found == {strong.run_id, collab.run_id}


def test_an_older_file_of_another_kind_is_replaced(results: Results) -> None:
    store(results, right(5, 12), system="weak")
    for content in (b"", b"not a database", bytes(5_000)):
        results.database.write_bytes(content)
        assert Results(results.root).all_runs() and database.rebuild(Results(results.root)) == []
        with duckdb.connect(str(results.database), read_only=True) as db:
            assert db.execute("SELECT count(*) FROM samples").fetchone() == (12,)
    publish(results, results.database)  # which lacks tables
    board = publish(results, results.root / "board.duckdb", texts=False)
    publish(results, board)
    with duckdb.connect(str(board), read_only=True) as db:
        assert db.execute("SELECT DISTINCT question[:6] FROM samples").fetchone() == ("SECRET",)
