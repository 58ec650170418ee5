"""Plans: what a YAML file may say, and that a dry run counts exactly the calls that are made."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from cowest_bench import plan as plans
from cowest_bench.config import ModelSpec
from cowest_bench.errors import ConfigError
from cowest_bench.plan import Plan
from cowest_bench.store import Results
from tests.conftest import ROOT, SEED, cowest
from tests.endpoint import Endpoint

EXAMPLES = ROOT / "examples"


def test_options_have_the_last_word(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(
        "tasks: [a]\nweak: here\nstrong: {name: openai/x, price: {input: 1, output: 2}}\n"
        "options: {limit: 5, seed: 1}\n"
    )
    changes = {
        "tasks": None,
        "weak": {"dtype": "float32"},
        "strong": {"price": {"input": 3, "output": 4}},
        "options": {"limit": 7, "data": None},
        "budget": "5usd",
    }
    plan = Plan.load(file, changes)
    assert plan.weak == ModelSpec(name="here", dtype="float32")
    assert plan.strong is not None and plan.strong.price is not None
    assert (plan.strong.name, plan.strong.price.input) == ("openai/x", 3)
    assert plan.options == {"limit": 7, "seed": 1}
    assert (plan.tasks, plan.budget) == (("a",), "5usd")
    other = Plan.load(file, {"strong": {"name": "openai/y"}})
    assert other.strong == ModelSpec(name="openai/y")  # another model has another price


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: [a", "is no YAML"),
        ("- a", "is no mapping"),
        ("weak: x", "no tasks to run"),
        ("tasks: [a]\nsystem: [weak]", "no field system; did you mean systems"),
        ("tasks: [a]\nepochs: 0", "The plan's epochs is wrong"),
        ("tasks: [a]\nsystems: [colab]", "There is no system colab; did you mean collab"),
        ("tasks: [a]\nmethod: {kk: 3}", "no field method.kk"),
    ],
)
def test_a_plan_that_is_wrong_says_so_in_a_sentence(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Plan.load(tmp_path / "plan.yaml")


def test_a_plan_that_is_not_there() -> None:
    done = cowest("run", "nowhere.yaml")
    assert done.returncode == 2
    assert (
        done.stderr == "Error: The plan nowhere.yaml cannot be read: No such file or directory.\n"
    )


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_dry_run_needs_neither_network_nor_key(file: Path, tmp_path: Path) -> None:
    """Nothing is connected to (``connect`` is cut), and no key is set."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "def refused(*_): raise OSError('no network in a dry run')\n"
        "socket.socket.connect = socket.getaddrinfo = refused\n"
    )
    unset = ("COWEST_DATA", "OPENAI_API_KEY", "TOGETHER_API_KEY")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment["PYTHONPATH"] = str(tmp_path)
    arguments = ("--dry-run", "--format", "json", "--results", str(tmp_path / "results"))
    verb = "sweep" if file.stem == "sweep" else "run"
    done = cowest(verb, str(file), *arguments, env=environment)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["calls"]["strong"] > 0
    assert all(cell["questions"] > 0 and cell["basis"] for cell in summary["cells"])
    if file.stem == "paper":
        assert summary["cost"] > 0
        assert set(summary["detectable"]) == {
            "cowest_ifqa",
            "cowest_medmcqa",
            "cowest_prosocial_dialog",
        }
    assert not (tmp_path / "results").exists()


def test_a_dry_run_does_not_guess_around_files_that_were_named(tmp_path: Path) -> None:
    done = cowest("run", str(EXAMPLES / "paper.yaml"), "--dry-run", "--data", str(tmp_path))
    assert done.returncode == 2
    assert "There is no readable" in done.stderr


def rating(text: str) -> int:
    """An opinion on an answer that depends on nothing but its words."""
    return 1 + sum(text.encode()) % 10


def judging(messages: list[dict[str, str]]) -> str:
    """A judge who keeps to the form."""
    _, first, second = messages[-1]["content"].split("Answer ")[:3]
    a, b = rating(first.removeprefix("A:")), rating(second.removeprefix("B:").split("Rate")[0])
    return f"A coherence={a} agreement={a}; B coherence={b} agreement={b}"


def test_a_dry_run_counts_the_calls_that_are_made(
    weak: ModelSpec, strong: ModelSpec, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole method, with an evaluator as feedback, on the first questions of every split."""
    trained = {"max_length": 192, "gradient_checkpointing": False}
    method = {
        "k": 3,
        "signal": "evaluator",
        "sft": {"epochs": 1, "lora": None, "learning_rate": 1e-4, **trained},
        "dpo": {"steps": 2, "eval_steps": 1, "patience": 5, "batch_size": 4, **trained},
    }
    with Endpoint(judging) as judge:
        monkeypatch.setenv("JUDGE_BASE_URL", judge.url)
        monkeypatch.setenv("JUDGE_API_KEY", "not-a-secret")
        plan = Plan.load(
            None,
            {
                "tasks": ["cowest_pocket_medical"],
                "options": {"seed": SEED, "limit": 16},
                "weak": weak,
                "strong": strong,
                "evaluator": {"name": "openai-api/judge/j", "price": {"input": 2, "output": 8}},
                "systems": ["weak", "strong", "collab", "collab-tuned"],
                "method": method,
            },
        )
        before = plans.estimate(plan, results)
        runs = list(plans.run(plan, results))
    assert [run.system for run in runs] == ["weak", "strong", "collab", "collab-tuned"]
    planned: Counter[str] = Counter()
    for cell in before:
        planned.update(cell.calls)
    made = Counter(
        {
            role: sum(
                getattr(row, f"{role}_calls")
                for run in results.all_runs()
                for row in results.samples(run)
            )
            for role in planned
        }
    )
    assert made == planned
    assert made["evaluator"] == judge.usage["j"]["calls"] == 2 * 3 * 16

    (judged,) = [run for run in results.all_runs() if run.system == "evaluator"]
    assert judged.evaluator is not None and judged.reported == {"evaluator": [judge.model]}
    assert judged.metrics["agreement_of_orders"] == 1.0  # this judge has no favourite place
    rows = results.samples(judged)
    paid = sum(row.cost or 0 for row in rows)
    tokens = judge.usage["j"]
    assert paid == pytest.approx(
        (2 * tokens["prompt_tokens"] + 8 * tokens["completion_tokens"]) / 1e6
    )
    again = plans.estimate(plan, results)
    measured = [cell for cell in again if cell.system == "evaluator"]
    assert "as in earlier runs" in measured[0].basis
    assert measured[0].cost(plan) == pytest.approx(paid)
