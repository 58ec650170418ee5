"""Hand-made results folders: runs with given scores, without any model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cowest_bench.config import ModelSpec
from cowest_bench.store import Results, Run, SampleScore, content_hash
from cowest_bench.systems import COLLAB, find_system

Scores = Sequence[float | None]


def store(
    results: Results,
    scores: Scores,
    *,
    system: str = "collab",
    domain: str = "medical",
    data: str | None = None,
    row: Mapping[str, Sequence[Any]] | None = None,
    clusters: Sequence[str | None] | None = None,
    epochs: int = 1,
    compared_with: Sequence[str] | None = None,
    **given: Any,
) -> Run:
    """Write a run whose sample i has ``scores[i]`` (with epochs, one after the other).

    Args:
        results: Where to.
        scores: None is an error.
        system: Decides the models: ``org/weak-model`` and ``org/strong-model``, unless given.
        domain: And, unless ``data`` is given, the data set.
        data: Hash of the data set.
        row: Other columns, each with a value for each score.
        clusters: Of the samples.
        epochs: How often each sample was asked.
        compared_with: Of a collaboration whose system is not installed.
        **given: Other fields of the run.
    """
    of = COLLAB if compared_with else find_system(system)
    models = {role: given.pop(role, f"org/{role}-model") for role in of.roles}
    identity = {
        "questions": data or f"data-{domain}",
        "models": {role: _identity(model) for role, model in models.items()},
        "of": content_hash([system, list(scores), given]),
    }
    known = [score for score in scores if score is not None]
    run = Run.model_validate(
        {
            "run_id": content_hash(identity),
            "score_id": "scored",
            "data": data or f"data-{domain}",
            "compared_with": compared_with or of.compared_with,
            "versions": {"lm-eval": "1", "cowest-bench": "1"},
            "task": f"task_{domain}",
            "domain": domain,
            "split": "test",
            "system": system,
            "weak": None,
            "strong": None,
            "seed": 0,
            "epochs": epochs,
            "n_total": len(scores),
            "n_scored": len(known),
            "score": sum(known) / len(known) if known else None,
            "metrics": {},
            "seconds": 1.0,
            "identity": identity,
            "log": "logs/x",
            **models,
            **given,
        }
    )
    questions = len(scores) // epochs
    rows = [
        SampleScore(
            run_id=run.run_id,
            sample_id=i % questions,
            epoch=1 + i // questions,
            cluster=clusters[i % questions] if clusters else None,
            score=score,
            **{
                "weak_calls": of.calls.get("weak", 0),
                "strong_calls": of.calls.get("strong", 0),
                "question": f"SECRET question {i}",
                "gold": "SECRET gold",
                "error": "SECRET error" if score is None else None,
                **{name: values[i] for name, values in (row or {}).items()},
            },
        )
        for i, score in enumerate(scores)
    ]
    return results.write(run, rows)


def judge(results: Results, drafts: Run, marks: Scores) -> Run:
    """Write an evaluator's marks of a run's answers."""
    model = ModelSpec(name="org/judge")
    identity = {"models": {"evaluator": {"name": model.name}}, "of": drafts.run_id}
    run_id = content_hash(identity)
    roles: dict[str, Any] = {"weak": None, "strong": None, "evaluator": model, "compared_with": ()}
    told = {"run_id": run_id, "system": "evaluator", "identity": identity, **roles}
    known = [mark for mark in marks if mark is not None]
    told |= {"n_scored": len(known), "score": sum(known) / len(known)}
    asked = len(marks) // drafts.epochs
    rows = [
        SampleScore(
            *(run_id, i % asked, 1 + i // asked, None, "question", "gold"),
            draft="x",
            score=mark,
            error="no mark" if mark is None else None,
        )
        for i, mark in enumerate(marks)
    ]
    return results.write(drafts.model_copy(update=told), rows)


def _identity(model: Any) -> dict[str, str]:
    """Of a model by its name, or of one by its fields, whose folders may be moved."""
    if isinstance(model, str):
        return {"name": model}
    return {key: Path(model[key]).name for key in ("name", "adapter") if key in model}


def right(count: int, total: int) -> list[float]:
    """The first ones right, the others wrong."""
    return [1.0] * count + [0.0] * (total - count)


def damage(path: Path) -> None:
    """Overwrite the pages of a Parquet file, so that only its footer can be read."""
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    path.write_bytes(content[:4] + b"\xff" * (len(content) - footer - 4) + content[-footer:])


def at(hour: int) -> datetime:
    """A time of the day on which the runs of a test were made."""
    return datetime(2026, 11, 1, hour, tzinfo=UTC)


def random_scores(count: int, share: float, seed: int) -> list[float]:
    """Right/wrong scores, of which about a share is right."""
    return [float(x) for x in np.random.default_rng(seed).random(count) < share]


def card(results: Results, name: str, kind: str, model: Mapping[str, Any], **given: Any) -> str:
    """Write the card of a training from a model of that identity; returns a path on another machine."""
    path = results.models / name / "card.json"
    path.parent.mkdir(parents=True)
    made = {"kind": kind, "model": model, "n_rows": 40, "seed": 0, "seconds": 2.5, **given}
    path.write_text(json.dumps(made, indent=1))
    return f"/elsewhere/models/{name}/card.json"


LOGGED = {
    "step": 5,
    "loss": 0.5,
    "learning_rate": 0.001,
    "logps/chosen": -1.5,
    "logps/rejected": -2.5,
    "rewards/margins": 0.25,
    "rewards/accuracies": 0.75,
}
TUNED = {
    "history": [LOGGED, {"step": 10, "train_runtime": 3.0}],
    "dev_scores": {"0": 0.5, "5": 0.625},
    "best_step": 5,
    "settings": {"beta": 0.1},
    "versions": {"trl": "1"},
}


def tuned(results: Results, questions: int = 40, **given: Any) -> Run:
    """Write a tuned collaboration, its training, and the feedback that this came from.

    In the feedback of two epochs every third answer has no draft, and one has no score.
    """
    weak, options = {"name": "/elsewhere/models/sft-1", "base": "weak-64"}, {"options": {"seed": 3}}
    feedback: dict[str, Any] = {"split": "feedback", "data": "asked", **options}
    answers = [None, *random_scores(2 * questions - 1, 0.6, 1)]
    drafts = [None if i % 3 == 0 else f"SECRET draft {i}" for i in range(2 * questions)]
    logprobs = [-float(i) if answers[i] is not None else None for i in range(2 * questions)]
    row: dict[str, list[Any]] = {"draft": drafts, "gold_logprob": logprobs}
    drafted = store(results, answers, weak=weak, epochs=2, row=row, **feedback)
    alone = random_scores(questions, 0.5, 2)
    row = {"gold_logprob": [-10.0] * questions}
    without = store(results, alone, system="strong", row=row, **feedback)
    learned_from = {"drafts": drafted.run_id, "alone": without.run_id, "judged": None}
    adapted = weak | {"adapter": "/elsewhere/models/dpo-1"}
    adapted["card"] = card(
        results, "dpo-1", "dpo", {"name": "sft-1"}, feedback=learned_from, **TUNED
    )
    scores = random_scores(questions, 0.9, 3)
    return store(results, scores, system="collab-tuned", weak=adapted, **(options | given))
