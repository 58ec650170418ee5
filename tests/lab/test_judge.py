"""The evaluator: its form, its two orders, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowest_bench.analysis.feedback import influence
from cowest_bench.config import Limits, ModelSpec
from cowest_bench.errors import ModelError
from cowest_bench.lab.judge import ratings, rubric
from cowest_bench.lab.local import Local
from cowest_bench.store import Results
from cowest_bench.tasks import load_task
from tests.endpoint import Endpoint
from tests.labs import cell

JUDGE = ModelSpec(name="openai-api/local/judge")
WEAK = ModelSpec(name="openai-api/local/weak")
STRONG = ModelSpec(name="openai-api/local/strong")


@given(st.tuples(*[st.integers(1, 10)] * 4))
def test_ratings_are_read_in_the_form_asked_for(numbers: tuple[int, ...]) -> None:
    a, b, c, d = numbers
    text = f"A coherence={a} agreement={b}; B coherence={c} agreement={d}"
    assert ratings(text) == ((a + b) / 20, (c + d) / 20)
    assert ratings(
        f"**A**: coherence: {a}, agreement: {b}\n**B**: coherence: {c}, agreement: {d}"
    ) == (
        (a + b) / 20,
        (c + d) / 20,
    )


@pytest.mark.parametrize(
    "text",
    ["", "A is better.", "A coherence=11 agreement=3; B coherence=1 agreement=1", "A " * 10**6],
)
def test_other_words_are_no_rating(text: str) -> None:
    with pytest.raises(ModelError, match="not of the form"):
        ratings(text)


def test_braces_in_answers_stay_as_they_are() -> None:
    assert "Answer A:\n{second}{gold}\n" in rubric("q", "g", "{second}{gold}", "b")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with Endpoint() as running:
        monkeypatch.setenv("LOCAL_BASE_URL", running.url)
        monkeypatch.setenv("LOCAL_API_KEY", "not-a-secret")
        yield running


def replies(judgement: str) -> object:
    """One server in three roles: it drafts, answers A alone and B with a draft, and judges."""

    def answer(messages: list[dict[str, str]]) -> str:
        text = messages[-1]["content"]
        if "Reference answer" in text:
            if judgement == "by words":
                better = "B" if "answer : gold" in text.split("Answer B")[1] else "A"
                return (
                    "A coherence=9 agreement=9; B coherence=2 agreement=1"
                    if better == "A"
                    else "A coherence=2 agreement=1; B coherence=9 agreement=9"
                )
            return judgement
        if text.endswith("helpful"):
            return "answer : gold"
        return "answer : other" if "answer" in text else "answer helpful"

    return answer


@pytest.mark.parametrize(
    ("judgement", "expected", "orders"),
    [
        ("by words", 0.75, 1.0),  # (9+9)/20 - (2+1)/20, in both orders
        ("A coherence=10 agreement=10; B coherence=1 agreement=1", 0.0, 0.0),  # prefers a place
        ("Both are fine.", None, None),
    ],
)
def test_a_favourite_place_gains_nothing(
    judgement: str,
    expected: float | None,
    orders: float | None,
    endpoint: Endpoint,
    results: Results,
) -> None:
    endpoint.answer = replies(judgement)  # type: ignore[assignment]
    task = load_task("cowest_pocket_medical", "feedback", seed=3, limit=8)
    lab = Local(results, limits=Limits(retries=1, sample_retries=0))
    drafts = lab.do(cell(task, "collab", weak=WEAK, strong=STRONG, epochs=2))
    alone = lab.do(cell(task, "strong", strong=STRONG))
    run = lab.judge(drafts, alone, JUDGE).run(results)
    assert run is not None
    rows = results.samples(run)
    assert [(row.sample_id, row.epoch) for row in rows] == [
        (i, e) for e in (1, 2) for i in range(8)
    ]
    assert [row.score for row in rows] == [
        expected if expected is None else pytest.approx(expected)
    ] * 16
    assert run.metrics.get("agreement_of_orders") == orders
    assert all(bool(row.error) == (expected is None) for row in rows)
    candidates = influence(rows, [], "evaluator")
    assert len(candidates) == (0 if expected is None else 16)
    assert all(candidate.draft == "answer helpful" for candidate in candidates)


def test_only_answers_that_changed_are_judged_again(endpoint: Endpoint, results: Results) -> None:
    """A refinement that failed at first is judged when it is there; no other rating is bought twice."""
    endpoint.answer = replies("by words")  # type: ignore[assignment]
    task = load_task("cowest_pocket_medical", "feedback", seed=3, limit=8)
    limits = Limits(retries=0, sample_retries=0)
    failing = task.samples[5].messages[-1]["content"]
    endpoint.fault = lambda text: (
        "broken" if text.startswith(failing) and "helpful" in text else None
    )
    steps = cell(task, "collab", weak=WEAK, strong=STRONG), cell(task, "strong", strong=STRONG)
    lab = Local(results, limits=limits)
    first = lab.judge(lab.do(steps[0]), lab.do(steps[1]), JUDGE).run(results)
    assert first is not None and first.n_scored == 7
    endpoint.fault = lambda text: None
    endpoint.asked.clear()
    lab = Local(results, limits=limits)
    second = lab.judge(lab.do(steps[0]), lab.do(steps[1]), JUDGE).run(results)
    assert second is not None and second.n_scored == 8
    assert sum("Reference answer" in text for text in endpoint.asked.elements()) == 2  # both orders
