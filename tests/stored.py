"""Hand-made results folders: runs with given scores, without any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cowest_bench.config import SYSTEMS
from cowest_bench.records import Results, Run, SampleScore, content_hash

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
    **given: Any,
) -> Run:
    """Write a run whose question i has ``scores[i]`` (with epochs, one after the other).

    Args:
        results: Where to.
        scores: None is an error.
        system: Decides the models; the weak one is ``w``, the strong one ``s``, unless given.
        domain: And, unless ``data`` is given, the data set.
        data: Hash of the data set.
        row: Other columns, each with a value for each score.
        clusters: Of the questions.
        epochs: How often each question was asked.
        **given: Other fields of the run.
    """
    models = {role: given.pop(role, f"org/{role}-model") for role in SYSTEMS[system]}
    identity = {
        "data": data or f"data-{domain}",
        "models": {role: {"name": name} for role, name in models.items()},
        "graded": False,
        "versions": given.pop("versions", {"lm-eval": "1", "cowest-bench": "1"}),
        "of": [system, list(scores), {key: str(value) for key, value in given.items()}],
    }
    known = [score for score in scores if score is not None]
    run = Run.model_validate(
        {
            "run_id": content_hash(identity),
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
            question=f"SECRET question {i}",
            gold="SECRET gold",
            score=score,
            error="SECRET error" if score is None else None,
            weak_calls=int("weak" in models),
            strong_calls=int("strong" in models),
            **{name: values[i] for name, values in (row or {}).items()},
        )
        for i, score in enumerate(scores)
    ]
    results.write(run, rows)
    return run


def right(count: int, total: int) -> list[float]:
    """The first ones right, the others wrong."""
    return [1.0] * count + [0.0] * (total - count)
