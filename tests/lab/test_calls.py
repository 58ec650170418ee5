"""The calls that a plan counts are the calls that are made, whatever the plan; and made only once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cowest_bench import plan as plans
from cowest_bench.lab.planned import forecast
from cowest_bench.plan import Plan
from cowest_bench.pocket import demo as pocket
from cowest_bench.store import Results
from cowest_bench.tasks import load_task
from tests.endpoint import Endpoint
from tests.labs import calls_made

TASK = "cowest_pocket_medical"
OPTIONS = {"seed": 3, "limit": 8}
ROLES = ("weak", "strong", "evaluator")
TINY = {"max_length": 192, "gradient_checkpointing": False}
SYSTEMS = ("weak", "strong", "collab", "collab-tuned")


def gold_answers() -> dict[str, str]:
    """The gold answer of every question that can be asked, by its text."""
    return {
        sample.messages[-1]["content"]: sample.accepted[0]
        for split in ("feedback", "dev", "test")
        for sample in load_task(TASK, split, **OPTIONS).samples
    }


def rating(text: str) -> int:
    """An opinion on an answer that depends only on its words."""
    return 1 + sum(text.encode()) % 10


class Strong:
    """Answers a question right or wrong by a hash of all that it is told; rates answers likewise."""

    def __init__(self) -> None:
        self.gold = gold_answers()

    def __call__(self, messages: list[dict[str, str]]) -> str:
        text = messages[-1]["content"]
        if "Reference answer" in text:
            _, first, second = text.split("Answer ")[:3]
            a, b = (
                rating(first.removeprefix("A:")),
                rating(second.removeprefix("B:").split("Rate")[0]),
            )
            return f"A coherence={a} agreement={a}; B coherence={b} agreement={b}"
        question = next(known for known in self.gold if text.startswith(known))
        right = hashlib.sha256(text.encode()).digest()[0] % 2
        return f"answer : {self.gold[question] if right else 'nothing'}"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with pytest.MonkeyPatch.context() as patch, Endpoint(Strong()) as running:
        patch.setenv("LOCAL_BASE_URL", running.url)
        patch.setenv("LOCAL_API_KEY", "not-a-secret")
        yield running


methods = st.fixed_dictionaries(
    {
        "k": st.integers(2, 4),
        "rounds": st.integers(1, 2),
        "signal": st.sampled_from(["metric", "evaluator"]),
        "rule": st.sampled_from(["sign", "rank"]),
        "control": st.sampled_from([None, "random-pairs", "best-draft-sft"]),
        "steps": st.integers(1, 3),
        "eval_steps": st.integers(1, 2),
    }
)


@pytest.mark.slow
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    systems=st.sets(st.sampled_from(SYSTEMS), min_size=1).map(sorted),
    epochs=st.integers(1, 2),
    method=st.none() | methods,
    seed=st.integers(0, 10**6),
)
def test_planned_calls_are_made_calls(
    systems: list[str],
    epochs: int,
    method: dict[str, Any] | None,
    seed: int,
    endpoint: Endpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """For systems x method x rounds x controls: counted at the server, and in the records."""
    results = Results(tmp_path_factory.mktemp("calls"))
    results.prepare()
    plan = Plan.load(None, described(results, systems, epochs, method, seed))
    planned = plans.planned(plan).steps.values()
    before = Counter({role: calls["calls"] for role, calls in endpoint.usage.items()})
    foreseen = forecast(planned, results)
    runs = list(plans.run(plan, results))
    after = Counter({role: calls["calls"] for role, calls in endpoint.usage.items()})
    assert {run.system for run in runs} == set(systems) - (set() if method else {"none"})
    counted: Counter[str] = Counter()
    for each in foreseen:
        assert not each.at_most  # patience is long
        counted.update(each.calls)
    made = {role: counted.get(role, 0) for role in ROLES}
    assert calls_made(results, ROLES) == made
    assert {role: after[role] - before[role] for role in ("strong", "evaluator")} == {
        role: made[role] for role in ("strong", "evaluator")
    }
    assert [each.answers for each in forecast(planned, results)] == [0] * len(
        forecast(planned, results)
    )
    again = [run.run_id for run in plans.run(plan, results)]
    assert again == [run.run_id for run in runs]
    assert {role: calls["calls"] for role, calls in endpoint.usage.items()} == dict(after)


def described(
    results: Results, systems: list[str], epochs: int, method: dict[str, Any] | None, seed: int
) -> dict[str, Any]:
    """A plan with a local weak model, and a strong one and an evaluator behind an endpoint."""
    content: dict[str, Any] = {
        "tasks": [TASK],
        "options": OPTIONS,
        "weak": pocket.fresh_weak(seed % 3, results, 32).model_dump(),
        "strong": {"name": "openai-api/local/strong"},
        "evaluator": {"name": "openai-api/local/evaluator"},
        "systems": systems,
        "epochs": epochs,
        "seed": seed,
    }
    if method is not None:
        how = dict(method)
        dpo = {"steps": how.pop("steps"), "eval_steps": how.pop("eval_steps"), "batch_size": 4}
        content["method"] = {
            **{key: value for key, value in how.items() if value is not None},
            "sft": {"epochs": 1, "lora": None, **TINY},
            "dpo": {**dpo, "patience": 9, **TINY},
        }
    return content


def test_a_finished_part_is_subtracted(endpoint: Endpoint, tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.prepare()
    content = described(results, ["strong"], 1, None, 0)
    list(plans.run(Plan.load(None, content), results))
    both = Plan.load(None, content | {"systems": ["strong", "collab"]})
    left = forecast(plans.planned(both).steps.values(), results)
    assert [(each.step.system.name, each.calls) for each in left if each.answers] == [
        ("collab", {"weak": 8, "strong": 8})
    ]
