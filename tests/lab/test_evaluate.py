"""Runs: cached by content, complete in the face of errors, usable from Python."""

from __future__ import annotations

import re
from typing import Any

import pytest
from inspect_ai.model import GenerateConfig, ModelAPI, ModelOutput, get_model, modelapi

from cowest_bench import models
from cowest_bench.config import ModelSpec
from cowest_bench.errors import ConfigError
from cowest_bench.report.results import summarise
from cowest_bench.store import Results
from cowest_bench.tasks import load_task
from tests.conftest import ROOT
from tests.labs import evaluate

TASK = "cowest_pocket_medical"


class FailingProvider(models.HFLMProvider):
    """The shipped model, whose service refuses every prompt that mentions option ``A k...``."""

    async def generate(
        self, input: Any, tools: Any, tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        if re.search(r" A [b-k]", input[-1].text):
            raise RuntimeError("the service has refused")
        return await super().generate(input, tools, tool_choice, config)


@modelapi(name="failing")
def failing() -> type[ModelAPI]:
    return FailingProvider


def test_an_error_is_neither_a_zero_nor_a_gap(
    strong: ModelSpec, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task(TASK, "dev", seed=3)
    whole = evaluate(task, "strong", results=results, strong=strong)
    monkeypatch.setattr(
        models,
        "open_model",
        lambda spec, limits: get_model(f"failing/{spec.path}", dtype="float32"),
    )
    run = evaluate(task, "strong", results=results, strong=strong, control="failing service")
    rows = results.samples(run)
    refused = [row for row in rows if row.error]
    assert len(rows) == run.n_total == 120
    assert 0 < len(refused) < 120
    assert all(row.score is None and "the service has refused" in str(row.error) for row in refused)
    assert run.coverage == run.n_scored / 120 == 1 - len(refused) / 120
    scores = {row.sample_id: row.score for row in results.samples(whole)}
    answered = [row for row in rows if not row.error]
    assert [row.score for row in answered] == [scores[row.sample_id] for row in answered]
    assert run.score == pytest.approx(sum(row.score or 0.0 for row in answered) / len(answered))
    shown = summarise(results, [run])["domains"]["medical"]["strong (failing service)"]
    assert (shown["n"], shown["coverage"]) == (run.n_scored, run.coverage)


def test_a_finished_run_is_not_run_again(strong: ModelSpec, results: Results) -> None:
    task = load_task(TASK, "dev", seed=3)
    first = evaluate(task, "strong", results=results, strong=strong)
    calls: list[int] = []
    again = evaluate(
        task, "strong", results=results, strong=strong, progress=lambda *_: calls.append(1)
    )
    assert again == first
    assert calls == []


def test_what_changes_the_number_changes_the_run(strong: ModelSpec, results: Results) -> None:
    ids = set()
    for seed, epochs in ((3, 1), (4, 1), (3, 2)):
        task = load_task(TASK, "dev", seed=seed)
        run = evaluate(task, "strong", results=results, strong=strong, epochs=epochs)
        assert run.n_scored == 120 * epochs
        ids.add(run.run_id)
    assert len(ids) == 3


def test_a_role_without_a_model_is_one_sentence(strong: ModelSpec, results: Results) -> None:
    with pytest.raises(ConfigError, match="System collab needs a weak model"):
        evaluate(load_task(TASK, "dev", seed=3), "collab", results=results, strong=strong)


def test_the_example_of_the_readme(
    demo: tuple[Results, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run beside the demo of the same world, it finds everything done and says the same."""
    results, summary = demo
    readme = (ROOT / "README.md").read_text()
    (example,) = [block.split("```")[0] for block in readme.split("```python\n")[1:]]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(results.root.parent)
    before = len(results.all_runs())
    known: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), known)  # noqa: S102 (our own README)
    assert known["run"].score == summary["domains"]["medical"]["collab-tuned"]["score"]
    assert len(results.all_runs()) == before
