"""Models behind an endpoint: no hang, no silent zero, exact counts, no key anywhere."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import duckdb
import pytest

from cowest_bench.config import Limits, ModelSpec, Price
from cowest_bench.errors import BudgetError, ConfigError
from cowest_bench.models.budget import Budget
from cowest_bench.store import Results, database
from cowest_bench.tasks import load_task
from tests.endpoint import Endpoint, Fault
from tests.labs import evaluate

TASK = "cowest_pocket_medical"
KEY = "sk-never-to-be-seen-0123456789"
IMPATIENT = Limits(attempt_timeout=6, timeout=6, retries=1, sample_retries=0)
STRONG = ModelSpec(name="openai-api/local/strong", price=Price(input=2.5, output=10))
WEAK = ModelSpec(name="openai-api/local/weak", price=Price(input=0.1, output=0.3))


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with Endpoint() as running:
        monkeypatch.setenv("LOCAL_BASE_URL", running.url)
        monkeypatch.setenv("LOCAL_API_KEY", KEY)
        yield running


def faults(share: dict[Fault, int], questions: list[str]) -> dict[str, Fault]:
    """Which questions go wrong: so many of each kind, chosen by hash."""
    shuffled = sorted(questions, key=lambda text: hashlib.sha256(text.encode()).digest())
    kinds = [fault for fault, count in share.items() for _ in range(count)]
    return dict(zip(shuffled, kinds, strict=False))


def test_faults_become_error_rows_and_only_those_are_asked_again(
    endpoint: Endpoint, results: Results
) -> None:
    """500 for ever on 3% of the questions, a hang on 1%, broken JSON on 1%."""
    task = load_task(TASK, seed=3)
    questions = [sample.messages[-1]["content"] for sample in task.samples]
    wrong = faults({"500": 9, "hang": 3, "broken": 3}, questions)
    endpoint.fault = lambda question: wrong.get(question)
    run = evaluate(task, "strong", results=results, strong=STRONG, limits=IMPATIENT)
    rows = {row.question: row for row in results.samples(run)}
    assert len(rows) == run.n_total == 300
    assert {question for question, row in rows.items() if row.error} == set(wrong)
    assert all((row.score is None) == bool(row.error) for row in rows.values())
    assert run.coverage == 285 / 300
    right = [row.score for row in rows.values() if row.score is not None]
    assert run.score == pytest.approx(sum(right) / 285)
    database.rebuild(results)
    with duckdb.connect(str(results.database), read_only=True) as db:
        row = db.execute("SELECT coverage, n_scored, n_total FROM leaderboard").fetchall()
    assert row == [(0.95, 285, 300)]

    still = evaluate(task, "strong", results=results, strong=STRONG, limits=IMPATIENT)
    assert (still.n_scored, still.attempts) == (285, 2)
    endpoint.fault = lambda question: None
    endpoint.asked.clear()
    healed = evaluate(task, "strong", results=results, strong=STRONG, limits=IMPATIENT)
    assert set(endpoint.asked) == set(wrong)
    assert set(endpoint.asked.values()) == {1}
    assert (healed.run_id, healed.coverage) == (run.run_id, 1.0)
    after = {row.question: row for row in results.samples(healed)}
    assert all(after[question] == row for question, row in rows.items() if not row.error)
    endpoint.asked.clear()
    assert evaluate(task, "strong", results=results, strong=STRONG) == healed
    assert not endpoint.asked


def test_a_question_is_asked_once_more_from_the_start(endpoint: Endpoint, results: Results) -> None:
    """What no retry of the call mends (broken JSON), another try of the question may."""
    task = load_task(TASK, "dev", seed=3, limit=6)
    broken = task.samples[2].messages[-1]["content"]
    endpoint.fault = lambda question: (
        "broken" if question == broken and endpoint.asked[question] == 1 else None
    )
    again = IMPATIENT.model_copy(update={"sample_retries": 1})
    run = evaluate(task, "strong", results=results, strong=STRONG, limits=again)
    assert (run.coverage, endpoint.asked[broken]) == (1.0, 2)


def test_only_the_missing_epochs_are_asked_again(endpoint: Endpoint, results: Results) -> None:
    task = load_task(TASK, "dev", seed=3, limit=12)
    seen: set[str] = set()

    def fails_once(question: str) -> Fault:
        """The refinement of some drafts, when it first comes in."""
        if "draft" in question and question.endswith(("1", "4")) and question not in seen:
            seen.add(question)
            return "broken"
        return None

    drafts = iter(range(10_000))
    endpoint.answer = lambda messages: (
        "answer : B" if "draft" in messages[-1]["content"] else f"draft {next(drafts)}"
    )
    endpoint.fault = fails_once
    ask = partial(evaluate, task, "collab", results=results, weak=WEAK, strong=STRONG, epochs=3)
    first = ask(limits=IMPATIENT)
    before = results.samples(first)
    failed = {(row.sample_id, row.epoch) for row in before if row.error}
    assert len(failed) == len(seen) > 2
    endpoint.asked.clear()
    endpoint.fault = lambda question: None
    second = ask(limits=IMPATIENT)
    assert second.coverage == 1.0
    assert sum(endpoint.asked.values()) == len(failed)  # the drafts are on record
    changed = set(results.samples(second)) ^ set(before)
    assert {(row.sample_id, row.epoch) for row in changed} == failed


def test_a_refusal_is_no_answer(endpoint: Endpoint, results: Results) -> None:
    """The engine hands a content filter's message over as if it were the model's answer."""
    task = load_task(TASK, "dev", seed=3, limit=10)
    refused = task.samples[4].messages[-1]["content"]
    endpoint.fault = lambda question: "filtered" if question == refused else None
    run = evaluate(task, "strong", results=results, strong=STRONG, limits=IMPATIENT)
    (row,) = [row for row in results.samples(run) if row.error]
    assert row.question == refused
    assert "refused the request: blocked by policy" in str(row.error)


def test_tokens_and_cost_are_the_servers(endpoint: Endpoint, results: Results) -> None:
    """Counts per role equal the server's own; cost is tokens times price to the cent."""
    endpoint.answer = lambda messages: "a draft of five words" if len(messages) else ""
    task = load_task(TASK, "dev", seed=3)
    run = evaluate(task, "collab", results=results, weak=WEAK, strong=STRONG, epochs=2)
    rows = results.samples(run)
    for role, spec in (("weak", WEAK), ("strong", STRONG)):
        served = endpoint.usage[spec.label]
        assert sum(getattr(row, f"{role}_calls") for row in rows) == served["calls"] == 240
        for ours, theirs in (("input", "prompt"), ("output", "completion")):
            counted = sum(getattr(row, f"{role}_{ours}_tokens") for row in rows)
            assert counted == served[f"{theirs}_tokens"]
    weak, strong = endpoint.usage["weak"], endpoint.usage["strong"]
    expected = weak["prompt_tokens"] * 0.1 + weak["completion_tokens"] * 0.3
    expected += strong["prompt_tokens"] * 2.5 + strong["completion_tokens"] * 10
    assert sum(row.cost or 0.0 for row in rows) == pytest.approx(expected / 1e6, abs=1e-9)
    assert all(row.cost == (row.weak_cost or 0) + (row.strong_cost or 0) for row in rows)
    assert all(row.weak_seconds and row.strong_seconds for row in rows)
    assert run.reported == {"weak": [endpoint.model], "strong": [endpoint.model]}


@pytest.mark.parametrize("limit", [Budget(calls=30), Budget(usd=0.004)])
def test_a_budget_is_never_passed_and_can_be_resumed(
    limit: Budget, endpoint: Endpoint, results: Results
) -> None:
    task = load_task(TASK, "dev", seed=3)
    with pytest.raises(BudgetError, match="Stopped before passing the budget"):
        evaluate(task, "strong", results=results, strong=STRONG, budget=limit)
    served = endpoint.usage["strong"]
    paid = (served["prompt_tokens"] * 2.5 + served["completion_tokens"] * 10) / 1e6
    if limit.usd is not None:
        assert 0.5 * limit.usd < paid <= limit.usd
        assert limit.spent_usd == pytest.approx(paid)
    else:
        assert served["calls"] == 30
    asked = set(endpoint.asked)
    (run,) = results.all_runs()
    assert run.n_scored == served["calls"] < run.n_total == 120
    endpoint.asked.clear()
    whole = evaluate(task, "strong", results=results, strong=STRONG, budget=Budget(usd=5))
    assert whole.coverage == 1.0
    assert not asked & set(endpoint.asked)


def test_a_budget_in_dollars_needs_a_price(endpoint: Endpoint, results: Results) -> None:
    free = ModelSpec(name="openai-api/local/strong")
    with pytest.raises(ConfigError, match="--strong-price"):
        evaluate(
            load_task(TASK, seed=3), "strong", results=results, strong=free, budget=Budget(usd=1)
        )


@pytest.mark.parametrize("text", ["20", "usd", "-3usd", "1.5calls", "20 eur"])
def test_a_budget_that_is_none_says_so(text: str) -> None:
    with pytest.raises(ConfigError, match="give 20usd or 500calls"):
        Budget.parse(text)


def test_no_key_is_left_anywhere(
    endpoint: Endpoint, results: Results, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in rows, logs, database or output, even if the endpoint repeats it in its errors."""
    task = load_task(TASK, "dev", seed=3, limit=20)
    wrong: dict[str, Fault] = {
        task.samples[3].messages[-1]["content"]: "500",
        task.samples[7].messages[-1]["content"]: "refused",
    }
    endpoint.fault = lambda question: wrong.get(question)
    titles: list[bool] = []

    def answer(messages: list[dict[str, str]]) -> str:
        titles.append(any(KEY.encode() in title for title in process_titles()))
        return "answer : A"

    endpoint.answer = answer
    evaluate(task, "collab", results=results, weak=WEAK, strong=STRONG, limits=IMPATIENT)
    assert titles and not any(titles)
    database.rebuild(results)
    assert endpoint.authorizations == {f"Bearer {KEY}"}
    found = [str(path) for path in results.root.rglob("*") if path.is_file() and holds_key(path)]
    assert found == []
    shown = capfd.readouterr()
    assert KEY not in shown.out + shown.err


def process_titles() -> Iterator[bytes]:
    """The command lines of all processes, while a call is being answered."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            yield path.read_bytes()


def holds_key(path: Path) -> bool:
    """Whether the key is in a file, or in what a log (a zip) packs."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(KEY.encode() in archive.read(name) for name in archive.namelist())
    return KEY.encode() in path.read_bytes()
