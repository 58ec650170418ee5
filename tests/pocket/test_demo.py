"""The main job, end to end: one demo in the medical domain, looked at from all sides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from inspect_ai.event import ModelEvent
from inspect_ai.log import list_eval_logs, read_eval_log_samples

from cowest_bench.store import Results, Run
from cowest_bench.tasks import Split, Task, load_task
from tests.conftest import ROOT, SEED, cowest

Demo = tuple[Results, dict[str, Any]]


def test_the_papers_pattern(demo: Demo) -> None:
    systems = demo[1]["domains"]["medical"]
    order = [systems[name]["score"] for name in ("strong", "weak", "collab", "collab-tuned")]
    assert order == sorted(order)
    assert systems["collab"]["over"]["weak"]["low"] > 0
    assert systems["collab-tuned"]["over"]["collab"]["low"] > 0


def test_what_the_json_holds(demo: Demo) -> None:
    row = demo[1]["domains"]["medical"]["collab-tuned"]
    assert (row["n"], row["coverage"], row["strong_calls"]) == (300, 1.0, 300)
    assert row["low"] < row["score"] < row["high"]
    gain = row["over"][row["best_single"]]
    assert gain["helped"] - gain["hurt"] == pytest.approx(300 * gain["difference"])
    assert demo[1]["pooled"]["collab"]["score"] == demo[1]["domains"]["medical"]["collab"]["score"]
    assert {"sft", "feedback", "dpo", "weak", "strong", "collab"} <= set(
        demo[1]["seconds"]["medical"]
    )


def test_strong_alone_is_near_chance(demo: Demo) -> None:
    """Four options: the strong model has none of the world's knowledge."""
    row = demo[1]["domains"]["medical"]["strong"]
    assert row["low"] <= 0.25 <= row["high"]


def test_controls(demo: Demo) -> None:
    """Another question's draft does not help; pairs at random gain far less than real ones."""
    systems = demo[1]["domains"]["medical"]
    assert systems["collab (shuffled)"]["over"]["strong"]["low"] <= 0
    tuned = systems["collab-tuned"]["over"]["collab"]["difference"]
    at_random = systems["collab-tuned (random-pairs)"]["over"]["collab"]["difference"]
    assert at_random < tuned / 2
    assert systems["collab-tuned (best-draft-sft)"]["n"] == 300


def test_second_demo_answers_from_what_is_there(demo: Demo) -> None:
    results, summary = demo
    before = {path.name: path.stat().st_mtime_ns for path in results.runs.iterdir()}
    options = ("--domain", "medical", "--seed", str(SEED), "--controls", "--format", "json")
    done = cowest("demo", *options, "--results", str(results.root))
    assert json.loads(done.stdout) == summary
    assert {path.name: path.stat().st_mtime_ns for path in results.runs.iterdir()} == before


# --- independence ---------------------------------------------------------------------------------


def runs(results: Results, split: str) -> Iterator[Run]:
    return (run for run in results.all_runs() if run.split == split)


def prompts_of(results: Results, run: Run) -> Iterator[tuple[Any, list[ModelEvent]]]:
    """Every sample of a run's log with the model calls that were made for it."""
    (log,) = [
        log for log in list_eval_logs(str(results.root / run.log)) if not log.name.endswith(".json")
    ]
    for sample in read_eval_log_samples(log, resolve_attachments="full"):
        yield sample, [event for event in sample.events if isinstance(event, ModelEvent)]


@pytest.mark.parametrize("split", ["test", "feedback", "dev"])
def test_models_see_the_question_and_the_draft_and_nothing_else(demo: Demo, split: Split) -> None:
    """Every prompt that was really sent is the task's question, or it and a weak model's own draft."""
    results, _ = demo
    seen = 0
    for run in runs(results, split):
        questions = [
            s.messages[-1]["content"] for s in load_task(run.task, split, seed=SEED).samples
        ]
        for sample, calls in prompts_of(results, run):
            question = questions[int(sample.id)]
            allowed = [question]
            if run.control == "shuffled":
                allowed = [questions[int(sample.id) - len(questions) // 2]]
            if len(calls) == 2:
                allowed.append(f"{question} {calls[0].output.completion}")
            assert [[m.text for m in call.input] for call in calls] == [[text] for text in allowed]
            assert [call.tools for call in calls] == [[]] * len(calls)
            seen += 1
    assert seen > 100


def scrambled(task: Task, field_values: dict[str, Any]) -> list[str]:
    """The questions as the task builds them from rows whose answers are other ones."""
    return [task.lm.doc_to_text({**doc, **field_values}) for doc in task.docs]


@pytest.mark.parametrize(
    ("domain", "answers"),
    [
        ("medical", {"cop": 0, "exp": "x", "topic_name": "x"}),
        ("counterfactual", {"answers": ["x"], "context": ["x"], "title": "x"}),
        ("ethics", {"safety_label": "x", "rots": ["x"], "response": "x", "dialogue_id": "x"}),
    ],
)
def test_questions_do_not_depend_on_answers_facts_or_labels(
    domain: str, answers: dict[str, Any]
) -> None:
    task = load_task(f"cowest_pocket_{domain}", seed=SEED)
    asked = [sample.messages[-1]["content"] for sample in task.samples]
    assert asked == scrambled(task, answers)


# --- the store ------------------------------------------------------------------------------------


def test_queries_of_the_documentation(demo: Demo) -> None:
    results, summary = demo
    page = (ROOT / "docs" / "database.md").read_text()
    queries = [block.split("```")[0] for block in page.split("```sql\n")[1:]]
    assert len(queries) == 3
    with duckdb.connect(str(results.database), read_only=True) as db:
        answers = [db.execute(query).fetchall() for query in queries]
    assert all(answers)
    helped = {row[1]: row[2:4] for row in answers[1] if row[0] == "medical"}
    gain = summary["domains"]["medical"]["collab-tuned"]["over"]["strong"]
    assert helped["collab-tuned"] == (gain["helped"], gain["hurt"])


def test_every_answer_is_a_row(demo: Demo) -> None:
    results, _ = demo
    for run in results.all_runs():
        rows = results.samples(run)
        assert len(rows) == run.n_total
        assert run.n_scored == sum(row.score is not None for row in rows)
        assert all(row.error is None for row in rows)
