"""The DuckDB database: made from the runs' files, swapped in as a whole, only ever read.

``results/scores.duckdb`` has two tables and four views. It is written under a temporary name and put
in place at once, so that readers never meet a half-written or locked file; it can be deleted at any
time. Tables: ``runs`` (one row per finished run) and ``samples`` (one row per answer).
"""

from __future__ import annotations

import json
from typing import Any

import duckdb

from cowest_bench.errors import ConfigError, RecordError
from cowest_bench.store.files import replaced
from cowest_bench.store.records import Run
from cowest_bench.store.results import Results

#: A question's score is the mean of its epochs; a run's that of its questions.
VIEWS = {
    "leaderboard": """
        SELECT task, domain, split, system, weak, strong, format, control, score, n_scored, n_total,
               n_scored / n_total AS coverage, run_id
        FROM runs WHERE split = 'test'
        ORDER BY task, score DESC""",
    # The McNemar table: what did the draft change, question by question, against strong-only?
    "helped_hurt": """
        SELECT c.task, c.domain, c.split, c.system, c.control, c.run_id,
               count(*) FILTER (WHERE s.score > a.score) AS helped,
               count(*) FILTER (WHERE s.score < a.score) AS hurt,
               count(*) FILTER (WHERE s.score = a.score AND s.score > 0) AS both_right,
               count(*) FILTER (WHERE s.score = a.score AND s.score = 0) AS both_wrong,
               count(*) FILTER (WHERE s.score IS NULL OR a.score IS NULL) AS not_scored
        FROM runs c
        JOIN runs r ON r.system = 'strong' AND r.data = c.data AND r.strong_hash = c.strong_hash
                   AND r.graded = c.graded
        JOIN samples s ON s.run_id = c.run_id
        JOIN samples a ON a.run_id = r.run_id AND a.sample_id = s.sample_id
        WHERE c.system IN ('collab', 'collab-tuned')
        GROUP BY ALL ORDER BY c.task, c.system""",
    # Every draft of the feedback split with its influence on the strong model.
    "preference_candidates": """
        SELECT c.task, c.run_id, s.sample_id, s.epoch, s.question, s.draft,
               s.score - a.score AS metric_influence,
               s.gold_logprob - a.gold_logprob AS logprob_influence
        FROM runs c
        JOIN runs r ON r.system = 'strong' AND r.data = c.data AND r.strong_hash = c.strong_hash
                   AND r.graded = c.graded
        JOIN samples s ON s.run_id = c.run_id
        JOIN samples a ON a.run_id = r.run_id AND a.sample_id = s.sample_id
        WHERE c.system = 'collab' AND c.split = 'feedback'
        ORDER BY c.task, s.sample_id, s.epoch""",
    "usage": """
        SELECT run_id, sum(weak_calls) AS weak_calls, sum(strong_calls) AS strong_calls,
               sum(evaluator_calls) AS evaluator_calls,
               sum(weak_input_tokens + weak_output_tokens) AS weak_tokens,
               sum(strong_input_tokens + strong_output_tokens) AS strong_tokens,
               sum(evaluator_input_tokens + evaluator_output_tokens) AS evaluator_tokens,
               CASE WHEN count(cost) = count(*) THEN sum(cost) END AS cost
        FROM samples GROUP BY run_id""",
}

_RUN_COLUMNS = {
    "run_id": "VARCHAR PRIMARY KEY",
    "task": "VARCHAR",
    "domain": "VARCHAR",
    "split": "VARCHAR",
    "system": "VARCHAR",
    "format": "VARCHAR",
    "control": "VARCHAR",
    "weak": "VARCHAR",
    "strong": "VARCHAR",
    "evaluator": "VARCHAR",
    "weak_hash": "VARCHAR",
    "strong_hash": "VARCHAR",
    "data": "VARCHAR",
    "graded": "BOOLEAN",
    "seed": "BIGINT",
    "epochs": "INTEGER",
    "n_total": "INTEGER",
    "n_scored": "INTEGER",
    "score": "DOUBLE",
    "metrics": "JSON",
    "identity": "JSON",
    "seconds": "DOUBLE",
    "created": "TIMESTAMPTZ",
    "log": "VARCHAR",
}


def rebuild(results: Results) -> None:
    """Make the database anew from the runs' files and put it in place."""
    runs = [run for run in results.all_runs() if _intact(results, run)]
    with replaced(results.database) as path, duckdb.connect(str(path)) as db:
        columns = ", ".join(f"{name} {kind}" for name, kind in _RUN_COLUMNS.items())
        db.execute(f"CREATE TABLE runs ({columns})")
        if runs:
            slots = ", ".join("?" * len(_RUN_COLUMNS))
            db.executemany(f"INSERT INTO runs VALUES ({slots})", [_run_row(r) for r in runs])
            files = [str(results.runs / f"{run.run_id}.parquet") for run in runs]
            # By name: runs of an earlier version may lack a column.
            db.execute(
                "CREATE TABLE samples AS SELECT * FROM read_parquet(?, union_by_name => true)",
                [files],
            )
            for name, query in VIEWS.items():
                db.execute(f"CREATE VIEW {name} AS {query}")


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


def _intact(results: Results, run: Run) -> bool:
    """Whether a run's rows can be read to the end; one damaged file would stop the whole statement."""
    try:
        results.columns(run)
    except RecordError as error:
        results.skip(run, error)
        return False
    return True


def _run_row(run: Run) -> list[Any]:
    models = run.model_ids
    derived = {
        "weak": run.weak.label if run.weak else None,
        "strong": run.strong.label if run.strong else None,
        "evaluator": run.evaluator.label if run.evaluator else None,
        "weak_hash": json.dumps(models["weak"], sort_keys=True) if run.weak else None,
        "strong_hash": json.dumps(models["strong"], sort_keys=True) if run.strong else None,
        "metrics": json.dumps(run.metrics),
        "identity": json.dumps(run.identity),
    }
    return [derived.get(name, getattr(run, name, None)) for name in _RUN_COLUMNS]
