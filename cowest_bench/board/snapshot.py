"""The leaderboard's snapshot: one immutable DuckDB file with everything that the app shows.

``publish`` reads finished runs, computes all statistics once, and puts the file in place at once, so
that a reader of the old one goes on undisturbed and nobody opens a file that a run writes. This module
names the tables and columns; importing it needs neither numpy nor scipy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb

from cowest_bench.errors import ConfigError
from cowest_bench.store import Results, replaced

SCHEMA_VERSION = 1
POOLED = "pooled"  # the domain that stands for all domains of a suite
TEXT_LENGTH = 20_000  # characters of a text that are kept
#: Of the connection that writes: bounded memory, and nothing printed.
SETTINGS = "SET memory_limit = '1GB'; SET enable_progress_bar = false"
MARGIN = 0.02  # a loss below it does not matter
ALPHA = 0.05
MIN_COVERAGE = 0.9  # entries with fewer of their questions scored are not ranked

Progress = Callable[[str, int, int], None]  # what, how many runs are done, of how many

#: Every column by table. Scores are in the units of the metric, intervals 95%; what is not known, or
#: lacks a system to compare with, is NULL.
TABLES: dict[str, dict[str, str]] = {
    # schema_version, id (new for each snapshot), published (ISO, UTC), cowest_bench (version),
    # texts (yes, no), command, notes (a JSON list: what was left out, and why)
    "meta": {"key": "VARCHAR PRIMARY KEY", "value": "VARCHAR"},
    # Test runs. Models are base labels, which all checkpoints share, and labels (checkpoint).
    # strong_run and weak_run: the runs of the same data in which a collaboration's models are alone.
    "runs": {
        "run_id": "VARCHAR PRIMARY KEY",
        "suite": "VARCHAR",
        "task": "VARCHAR",
        "domain": "VARCHAR",
        "split": "VARCHAR",
        "data": "VARCHAR",
        "entry": "VARCHAR",
        "system": "VARCHAR",
        "format": "VARCHAR",
        "control": "VARCHAR",
        "weak": "VARCHAR",
        "strong": "VARCHAR",
        "evaluator": "VARCHAR",
        "weak_checkpoint": "VARCHAR",
        "strong_checkpoint": "VARCHAR",
        "current": "BOOLEAN",
        "source": "VARCHAR",  # reference or local
        "seed": "BIGINT",
        "epochs": "INTEGER",
        "options": "JSON",
        "n_total": "INTEGER",
        "n_scored": "INTEGER",
        "n_questions": "INTEGER",
        "coverage": "DOUBLE",
        "score": "DOUBLE",
        "low": "DOUBLE",
        "high": "DOUBLE",
        "usd_per_1k": "DOUBLE",
        "seconds_per_1k": "DOUBLE",
        "weak_calls": "BIGINT",
        "strong_calls": "BIGINT",
        "weak_tokens": "BIGINT",
        "strong_tokens": "BIGINT",
        "metrics": "JSON",
        "identity": "JSON",
        "versions": "JSON",
        "prompts": "JSON",
        "attempts": "INTEGER",
        "created": "TIMESTAMPTZ",
        "strong_run": "VARCHAR",
        "weak_run": "VARCHAR",
        "training": "VARCHAR",
    },
    # See standings.entry_rows. helped to not_scored are against the strong model alone; over_best_p is
    # Holm's over the entries of a suite and domain, significant where it is below 0.05; needed and
    # detectable are those of the comparison with the better single model.
    "entries": {
        "suite": "VARCHAR",
        "domain": "VARCHAR",
        "entry": "VARCHAR",
        "label": "VARCHAR",
        "system": "VARCHAR",
        "weak": "VARCHAR",
        "strong": "VARCHAR",
        "format": "VARCHAR",
        "control": "VARCHAR",
        "n": "INTEGER",
        "n_total": "INTEGER",
        "coverage": "DOUBLE",
        "score": "DOUBLE",
        "low": "DOUBLE",
        "high": "DOUBLE",
        "rank_best": "INTEGER",
        "rank_worst": "INTEGER",
        "tie_group": "INTEGER",
        "usd_per_1k": "DOUBLE",
        "seconds_per_1k": "DOUBLE",
        "weak_tokens_per_question": "DOUBLE",
        "strong_tokens_per_question": "DOUBLE",
        "over_strong": "DOUBLE",
        "over_strong_low": "DOUBLE",
        "over_strong_high": "DOUBLE",
        "over_strong_verdict": "VARCHAR",
        "best_single": "VARCHAR",  # weak or strong
        "over_best": "DOUBLE",
        "over_best_low": "DOUBLE",
        "over_best_high": "DOUBLE",
        "over_best_p": "DOUBLE",
        "over_best_verdict": "VARCHAR",
        "over_best_detectable": "DOUBLE",
        "significant": "BOOLEAN",
        "helped": "INTEGER",
        "hurt": "INTEGER",
        "both_right": "INTEGER",
        "both_wrong": "INTEGER",
        "not_scored": "INTEGER",
        "needed": "BIGINT",
        "created": "TIMESTAMPTZ",
        "domains": "INTEGER",
        "missing": "VARCHAR",  # strong alone, weak alone
    },
    # Rows of the test runs by run_id, epoch, sample_id. Texts are cut at TEXT_LENGTH; without texts
    # they are NULL, an error is 'error' and a cluster a hash.
    "samples": {
        "run_id": "VARCHAR",
        "sample_id": "INTEGER",
        "epoch": "INTEGER",
        "cluster": "VARCHAR",
        **dict.fromkeys(("question", "gold", "draft", "output", "answer"), "VARCHAR"),
        "score": "DOUBLE",
        "error": "VARCHAR",
        "gold_logprob": "DOUBLE",
        "weak_calls": "INTEGER",
        "weak_input_tokens": "BIGINT",
        "weak_output_tokens": "BIGINT",
        "weak_seconds": "DOUBLE",
        "weak_cost": "DOUBLE",
        "strong_calls": "INTEGER",
        "strong_input_tokens": "BIGINT",
        "strong_output_tokens": "BIGINT",
        "strong_seconds": "DOUBLE",
        "strong_cost": "DOUBLE",
        "cost": "DOUBLE",
    },
    # One row for each training whose weak model is in a test run: the first such run, controls last.
    "trainings": {
        "training": "VARCHAR PRIMARY KEY",
        "kind": "VARCHAR",  # sft or dpo
        "suite": "VARCHAR",
        "domain": "VARCHAR",
        "entry": "VARCHAR",
        "run_id": "VARCHAR",
        "weak": "VARCHAR",
        "strong": "VARCHAR",
        "n_rows": "INTEGER",
        "best_step": "INTEGER",
        "seconds": "DOUBLE",
        "seed": "BIGINT",
        "settings": "JSON",
        "versions": "JSON",
    },
    "training_steps": {
        "training": "VARCHAR",
        "step": "INTEGER",
        "loss": "DOUBLE",
        "learning_rate": "DOUBLE",
        "chosen_logp": "DOUBLE",
        "rejected_logp": "DOUBLE",
        "margin": "DOUBLE",
        "accuracy": "DOUBLE",
        "dev_score": "DOUBLE",
    },
    # Every scored draft of the feedback run, by every signal that was recorded.
    "influences": {
        "training": "VARCHAR",
        "run_id": "VARCHAR",
        "signal": "VARCHAR",  # metric, logprob or evaluator
        "sample_id": "INTEGER",
        "epoch": "INTEGER",
        "delta": "DOUBLE",
    },
    "draft_lengths": {
        "suite": "VARCHAR",
        "domain": "VARCHAR",
        "run_id": "VARCHAR",
        "entry": "VARCHAR",
        "system": "VARCHAR",
        "mean_tokens": "DOUBLE",  # of the weak model's output per draft
    },
    "baselines": {
        "name": "VARCHAR",
        "blessed": "TIMESTAMPTZ",
        "run_id": "VARCHAR",
        "suite": "VARCHAR",
        "domain": "VARCHAR",
        "data": "VARCHAR",
        "system": "VARCHAR",
        "weak": "VARCHAR",
        "strong": "VARCHAR",
        "score": "DOUBLE",
        "n": "INTEGER",
    },
    "gates": {
        "run_id": "VARCHAR",
        "against": "VARCHAR",  # a run's id, or a baseline's name
        "kind": "VARCHAR",  # previous or baseline
        "difference": "DOUBLE",
        "low": "DOUBLE",
        "high": "DOUBLE",
        "verdict": "VARCHAR",
        "n": "INTEGER",
    },
}


def create_tables(db: duckdb.DuckDBPyConnection) -> None:
    """Make the empty tables of a snapshot."""
    for table, columns in TABLES.items():
        listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        db.execute(f"CREATE TABLE {table} ({listed})")


def notes(snapshot: Path) -> list[str]:
    """What a snapshot says was left out, a sentence each."""
    with duckdb.connect(str(snapshot), read_only=True) as db:
        found = db.execute("SELECT value FROM meta WHERE key = 'notes'").fetchall()
    return [note for (text,) in found for note in json.loads(text)]


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
    """Write a snapshot of all finished runs, and return its path.

    What cannot be read is left out, and a sentence in the snapshot says so (``notes``).

    Args:
        results: Where the runs are.
        target: The snapshot's file, which is replaced.
        submitted: Folder of the reference results; a run that is in both is the local one.
        baselines: Folder of the blessed baselines.
        texts: Whether to keep questions, answers, drafts, prompts and messages of errors.
        command: What made it, for the record.
        progress: Told how many runs are done.

    Raises:
        ConfigError: If the file cannot be written.
    """
    from cowest_bench.board.publication import Publication

    try:
        with replaced(target) as path:
            for left in (path, path.with_name(f"{path.name}.wal")):
                left.unlink(missing_ok=True)  # by a process that was killed
            with duckdb.connect(str(path)) as db:
                db.execute(SETTINGS)
                create_tables(db)
                Publication(db, results, submitted, texts, progress).write(baselines, command)
    except (OSError, duckdb.IOException) as error:
        raise ConfigError(
            f"The snapshot {target} cannot be written ({error}); choose another place with --to."
        ) from error
    return target
