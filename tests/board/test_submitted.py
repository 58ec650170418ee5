"""The committed reference results: sound, only ever added to; and what is packed for them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from cowest_bench.board.reference import BESIDE, problems, write_index
from cowest_bench.board.snapshot import publish
from cowest_bench.cli import main
from cowest_bench.store import Results, arrow_schema
from tests.conftest import ROOT
from tests.stored import judge, random_scores, right, store, tuned

SUBMITTED = ROOT / "results" / "submitted"


# --- the folder in git ----------------------------------------------------------------------------


def test_the_reference_results_are_sound() -> None:
    assert problems(SUBMITTED) == []


def rewritten(folder: Path) -> list[str] | None:
    """Files that were removed or changed after they were committed; None without a git history.

    Runs of an earlier schema may go: what counts is the time since the file ``SCHEMA`` was added.
    """

    def log(*options: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "log", "--no-renames", *options]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    since = log("--diff-filter=A", "--format=%H", "--", "SCHEMA").stdout.split()[-1:]
    known = [f"{commit}..HEAD" for commit in since]
    done = log("--diff-filter=DMT", "--format=", "--name-only", *known, "--", ".")
    named = sorted(
        line for line in set(done.stdout.splitlines()) if Path(line).name not in ("", *BESIDE)
    )
    return None if done.returncode else named


def test_no_reference_result_was_removed_or_changed() -> None:
    found = rewritten(SUBMITTED)
    if found is None:
        pytest.skip("there is no git history of results/submitted here")
    assert found == []


# --- packing --------------------------------------------------------------------------------------


def submit(results: Results, folder: Path, *arguments: str) -> Result:
    command = ["submit", *arguments, "--results", str(results.root), "--to", str(folder)]
    return CliRunner().invoke(main, command)


@pytest.fixture
def submitted(results: Results, tmp_path: Path) -> Path:
    """A tuned collaboration and its strong model alone, as they are submitted."""
    run = tuned(results)
    scores = random_scores(40, 0.5, 4)
    row: dict[str, list[Any]] = {"cost": [0.002] * 40, "output": ["said"] * 40}
    store(results, scores, system="strong", options={"seed": 3, "data": "/data"}, row=row)
    folder = tmp_path / "submitted"
    done = submit(results, folder, run.run_id, "system=strong")
    assert done.exit_code == 0, done.stderr
    return folder


def test_a_run_goes_with_its_training_and_the_scores_of_its_feedback(
    results: Results, submitted: Path
) -> None:
    stored, packed = results.all_runs(), Results(submitted).all_runs()
    assert [run.run_id for run in packed] == [run.run_id for run in stored]
    assert [path.name for path in (submitted / "models").iterdir()] == ["dpo-1"]
    for before, after in zip(stored, packed, strict=True):
        assert (after.identity, after.score, after.log) == (before.identity, before.score, "")
        old, new = results.samples(before), Results(submitted).samples(after)
        numbers = [(row.sample_id, row.epoch, row.score, row.gold_logprob) for row in new]
        assert numbers == [(row.sample_id, row.epoch, row.score, row.gold_logprob) for row in old]
        if before.split == "feedback":
            assert {row.draft for row in new} <= {None, "…"}
            assert {(row.question, row.gold, row.output, row.cost) for row in new} == {
                ("", "", None, None)
            }
        else:
            assert new == old
    written = "".join(path.read_text() for path in submitted.rglob("*.json*"))
    assert "/elsewhere" not in written and "/data" not in written
    (strong,) = [run for run in packed if run.system == "strong" and run.split == "test"]
    assert strong.options == {"seed": 3}


def test_the_evaluators_marks_go_along(results: Results, tmp_path: Path) -> None:
    run = tuned(results)
    (drafts, alone) = (r for r in results.all_runs() if r.split == "feedback")
    if drafts.system == "strong":
        drafts, alone = alone, drafts
    judged = judge(results, drafts, [0.25] * drafts.n_total)
    path = results.models / "dpo-1" / "card.json"
    feedback = {"drafts": drafts.run_id, "alone": alone.run_id, "judged": judged.run_id}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"feedback": feedback}))
    folder = tmp_path / "submitted"
    done = submit(results, folder, run.run_id)
    assert done.exit_code == 0, done.stderr
    assert {r.run_id for r in Results(folder).all_runs()} == {run.run_id, *feedback.values()}
    for source in ({"results": results}, {"results": Results(tmp_path), "submitted": folder}):
        board = publish(target=tmp_path / "board.duckdb", **source)
        with duckdb.connect(str(board), read_only=True) as db:
            counts = db.execute("SELECT signal, count(*) FROM influences GROUP BY ALL ORDER BY ALL")
            assert [signal for signal, _ in counts.fetchall()] == ["evaluator", "logprob", "metric"]


def test_a_board_of_reference_results_says_what_one_of_the_runs_says(
    results: Results, submitted: Path, tmp_path: Path
) -> None:
    empty = Results(tmp_path / "fresh-clone")
    ours = publish(results, tmp_path / "ours.duckdb")
    theirs = publish(empty, tmp_path / "theirs.duckdb", submitted=submitted)
    both = publish(results, tmp_path / "both.duckdb", submitted=submitted)
    columns = {
        "entries": "entry, domain, score, low, high, over_strong, over_strong_low, usd_per_1k",
        "influences": "*",
        "training_steps": "*",
        "samples": "*",
    }
    with duckdb.connect() as db:
        for name, path in (("ours", ours), ("theirs", theirs), ("together", both)):
            db.execute(f"ATTACH '{path}' AS {name} (READ_ONLY)")

        def read(query: str) -> list[Any]:
            return db.execute(query).fetchall()

        for table, wanted in columns.items():
            expected = read(f"SELECT {wanted} FROM ours.{table} ORDER BY ALL")
            assert (
                expected and read(f"SELECT {wanted} FROM theirs.{table} ORDER BY ALL") == expected
            )
        assert read("SELECT DISTINCT source FROM theirs.runs") == [("reference",)]
        assert read("SELECT count(*), min(source) FROM together.runs") == [(2, "local")]
        assert read("SELECT weak_checkpoint FROM theirs.runs WHERE weak IS NOT NULL") == read(
            "SELECT weak_checkpoint FROM ours.runs WHERE weak IS NOT NULL"
        )


def test_a_run_whose_training_left_no_card_goes_without(results: Results, tmp_path: Path) -> None:
    weak = {"name": "/gone/models/sft-1", "card": "/gone/models/sft-1/card.json", "base": "w"}
    run = store(results, right(3, 4), system="weak", weak=weak)
    folder = tmp_path / "submitted"
    assert submit(results, folder, run.run_id).exit_code == 0
    (packed,) = Results(folder).all_runs()
    assert packed.weak and (packed.weak.name, packed.weak.card) == ("sft-1", None)


def test_without_texts_only_numbers_are_submitted(results: Results, tmp_path: Path) -> None:
    row = {name: ["SECRET text"] * 3 for name in ("draft", "output", "answer", "metrics")}
    run = store(results, [1.0, None, 0.0], row=row, clusters=["SECRET"] * 3)
    folder = tmp_path / "submitted"
    assert submit(results, folder, run.run_id, "--no-texts").exit_code == 0
    assert not any(b"SECRET" in path.read_bytes() for path in folder.rglob("*.*"))
    (cleaned,) = Results(folder).all_runs()
    rows = Results(folder).samples(cleaned)
    assert [row.error for row in rows] == [None, "error", None]
    assert len({row.cluster for row in rows}) == 1 and rows[0].cluster
    assert publish(Results(folder), tmp_path / "board.duckdb").is_file()


def test_what_cannot_be_submitted_is_said(results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "submitted"
    feedback = store(results, right(2, 4), split="feedback")
    key = store(results, right(3, 4), row={"output": ["sk-" + "a1" * 16] * 4})
    home = store(results, [None], row={"error": ["no file (/home/me/key.txt)"]}, data="other")
    good = store(results, right(3, 4), system="strong")
    for run, words in (
        (feedback.run_id, "submit test runs"),
        (key.run_id, "looks like a key"),
        (home.run_id, "--no-texts"),
        ("system=weak", "No stored run"),
    ):
        done = submit(results, folder, good.run_id, run)
        assert done.exit_code == 2 and words in done.stderr
        assert not folder.exists()  # all or nothing
    assert submit(results, folder, good.run_id).exit_code == 0
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    again = submit(results, folder, good.run_id)
    assert again.exit_code == 2 and "already" in again.stderr
    (folder / "runs" / f"{good.run_id}.json").write_text("{}")
    onto_broken = submit(results, folder, home.run_id, "--no-texts")
    assert onto_broken.exit_code == 2 and "changed" in onto_broken.stderr
    assert {path.name for path in before} == {path.name for path in folder.rglob("*.*")}


# --- checking -------------------------------------------------------------------------------------


def first(folder: Path, pattern: str) -> Path:
    return min(folder.glob(pattern))


def rewrite(folder: Path, pattern: str, **given: Any) -> None:
    path = first(folder, pattern)
    content = json.loads(path.read_text()) | given
    path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def with_column(folder: Path, name: str, value: Any) -> None:
    """Give the first row of the tuned run another value."""
    run = next(r for r in Results(folder).all_runs() if r.system == "collab-tuned")
    path = folder / "runs" / f"{run.run_id}.parquet"
    table = pyarrow.parquet.read_table(path)
    values = [value, *table[name].to_pylist()[1:]]
    place, field = table.column_names.index(name), arrow_schema().field(name)
    column = pyarrow.array(values, field.type)
    pyarrow.parquet.write_table(table.set_column(place, field, column), path)


def copied(folder: Path) -> None:
    """The same run under another id."""
    path = first(folder, "runs/*.json")
    for suffix in (".json", ".parquet"):
        shutil.copy(path.with_suffix(suffix), path.with_name(f"aaaaaaaaaaaa{suffix}"))
    rewrite(folder, "runs/aaaaaaaaaaaa.json", run_id="aaaaaaaaaaaa")


def with_other_identity(folder: Path) -> None:
    identity = json.loads(first(folder, "runs/*.json").read_text())["identity"]
    rewrite(folder, "runs/*.json", identity=identity | {"more": 1})


def listed(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = folder / "index.jsonl"
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))


UNLISTED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file more": (lambda f: (f / "runs" / "extra.json").write_text("{}"), "not in index"),
    "a file less": (lambda f: first(f, "runs/*.parquet").unlink(), "not in the folder"),
    "a card less": (lambda f: first(f, "models/*/card.json").unlink(), "not in the folder"),
    "a changed file": (lambda f: rewrite(f, "runs/*.json", attempts=7), "was changed"),
    "no index": (lambda f: (f / "index.jsonl").unlink(), "cannot be read"),
    "a line twice": (lambda f: listed(f, lambda lines: [lines[0], *lines]), "twice"),
    "not sorted": (lambda f: listed(f, lambda lines: lines[::-1]), "not sorted"),
    "a line too many": (
        lambda f: listed(f, lambda lines: [*lines, '{"path": "z", "sha256": "0"}']),
        "z is in index.jsonl, but not",
    ),
}
#: Broken by someone who also updated the index.
RELISTED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another file": (lambda f: (f / "runs" / "notes.txt").write_text("x"), "belongs to no run"),
    "a link": (lambda f: (f / "runs" / "a.json").symlink_to("/etc/hostname"), "is a link"),
    "rows without a run": (lambda f: first(f, "runs/*.json").unlink(), "belongs to no run"),
    "a run without rows": (lambda f: first(f, "runs/*.parquet").unlink(), "cannot be read"),
    "a newer version": (
        lambda f: rewrite(f, "runs/*.json", schema_version=3),
        "is not a valid run",
    ),
    "another identity": (with_other_identity, "its id is not the hash of its identity"),
    "models that are not those of its identity": (
        lambda f: rewrite(f, "runs/*.json", identity={"models": {"evaluator": 1}}),
        "other models than its identity",
    ),
    "the same run twice": (copied, "it is the same as"),
    "a better score": (lambda f: rewrite(f, "runs/*.json", score=0.99), "its score is 0.99"),
    "fewer answers": (lambda f: rewrite(f, "runs/*.json", n_total=3), "says it has 3 rows"),
    "a log": (lambda f: rewrite(f, "runs/*.json", log="/home/me/logs"), "not written as"),
    "a folder": (
        lambda f: rewrite(f, "runs/*.json", task="/home/me/task"),
        "a folder of a machine",
    ),
    "a folder in a card": (
        lambda f: rewrite(f, "models/*/card.json", settings={"from": "C:\\Users"}),
        "a folder of a machine",
    ),
    "no card": (lambda f: shutil.rmtree(f / "models"), "there is no models/dpo-1/card.json"),
    "another kind of card": (
        lambda f: rewrite(f, "models/*/card.json", kind="sft"),
        "not the one that its folder says",
    ),
    "no card at all": (lambda f: rewrite(f, "models/*/card.json", kind=3), "not the card"),
    "a key": (lambda f: with_column(f, "question", "Bearer " + "x" * 30), "looks like a key"),
    "a changed score": (lambda f: with_column(f, "score", 0.25), "that of its rows"),
    "a score and an error": (lambda f: with_column(f, "error", "x"), "both a score and an error"),
    "rows of another run": (lambda f: with_column(f, "run_id", "x"), "of another run"),
    "a row twice": (lambda f: with_column(f, "sample_id", 1), "two rows of one epoch"),
    "no Parquet": (lambda f: first(f, "runs/*.parquet").write_bytes(b"x"), "cannot be read"),
    "a large file": (
        lambda f: first(f, "runs/*.parquet").write_bytes(bytes(11 * 2**20)),
        "more than 10,485,760 bytes",
    ),
}


@pytest.mark.parametrize("name", UNLISTED)
def test_what_was_done_to_the_folder_is_noticed(submitted: Path, name: str) -> None:
    assert problems(submitted) == []
    change, words = UNLISTED[name]
    change(submitted)
    found = problems(submitted)
    assert any(words in problem for problem in found), found


@pytest.mark.parametrize("name", RELISTED)
def test_what_is_not_sound_is_noticed_though_the_index_fits(submitted: Path, name: str) -> None:
    change, words = RELISTED[name]
    change(submitted)
    write_index(submitted)
    found = problems(submitted)
    assert any(words in problem for problem in found), found
    assert not any("index" in problem for problem in found)


def test_history_shows_what_was_removed_or_changed(submitted: Path) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]

    def git(*command: str) -> None:
        subprocess.run(["git", *who, *command], cwd=submitted, check=True, capture_output=True)

    assert rewritten(submitted) is None
    git("init")
    git("add", ".")
    git("commit", "-m", "added")
    listed(submitted, lambda lines: lines)
    (submitted / "README.md").write_text("about")
    git("add", ".")
    git("commit", "-m", "the index and the page about it may change")
    (submitted / "README.md").write_text("more about")
    listed(submitted, lambda lines: lines[1:])
    git("commit", "-a", "-m", "they did")
    assert rewritten(submitted) == []
    changed, removed = first(submitted, "runs/*.json"), first(submitted, "runs/*.parquet")
    changed.write_text("{}")
    removed.unlink()
    git("commit", "-a", "-m", "this must not be")
    changed.write_text("{ }")
    assert rewritten(submitted) == sorted([f"runs/{changed.name}", f"runs/{removed.name}"])
