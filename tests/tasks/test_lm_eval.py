"""Equality with the ``lm_eval`` command: every text, every score, every aggregate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cowest_bench.config import ModelSpec
from cowest_bench.store import Results
from cowest_bench.tasks import load_task, tasks_folder
from tests.conftest import SEED
from tests.labs import evaluate

TASKS = ("cowest_pocket_medical", "cowest_pocket_counterfactual", "cowest_pocket_ethics")


def lm_eval(model: ModelSpec, folder: Path) -> tuple[dict[str, Any], dict[str, dict[int, Any]]]:
    """What the command reports for all pocket tasks: results, and samples by task and document."""
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args"]
    command += [f"pretrained={model.path},dtype=float32", "--device", "cpu", "--batch_size", "64"]
    command += ["--include_path", str(tasks_folder()), "--tasks", ",".join(TASKS)]
    command += ["--metadata", json.dumps({"seed": SEED}), "--apply_chat_template"]
    command += ["--log_samples", "--output_path", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (reported,) = folder.rglob("results_*.json")
    samples = {
        task: {row["doc_id"]: row for row in map(json.loads, path.read_text().splitlines())}
        for task in TASKS
        for path in folder.rglob(f"samples_{task}_*.jsonl")
    }
    return json.loads(reported.read_text())["results"], samples


@pytest.mark.parametrize("system", ["weak", "strong"])
def test_equal_to_the_command(
    system: str, weak: ModelSpec, strong: ModelSpec, results: Results, tmp_path: Path
) -> None:
    model = {"weak": weak, "strong": strong}[system]
    reported, samples = lm_eval(model, tmp_path / "lm_eval")
    for name in TASKS:
        run = evaluate(
            load_task(name, seed=SEED), system, results=results, weak=weak, strong=strong
        )
        rows = results.samples(run)
        assert len(rows) == len(samples[name]) == 300
        for row in rows:
            theirs = samples[name][row.sample_id]
            assert row.output == theirs["resps"][0][0]
            assert row.answer == theirs["filtered_resps"][0]
            assert row.gold == theirs["target"]
            assert row.score == theirs["exact_match"]
        assert run.metrics == {
            key: value for key, value in reported[name].items() if key in run.metrics
        }
        assert set(run.metrics) == {"exact_match,answer", "exact_match_stderr,answer"}
