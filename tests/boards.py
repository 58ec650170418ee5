"""Hand-made snapshots for the leaderboard's tests: every system, no system, and what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cowest_bench.board.snapshot import publish
from cowest_bench.gate import baseline
from cowest_bench.store import Results
from tests.stored import at, random_scores, right, store, tuned

SUITE = "town"
QUESTIONS = 40
START = datetime(2026, 1, 1, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script> ![x](http://evil.example/x.png) \u202eright to left\x1b[31m"

# In ``pairings``:
TRIED = 60  # samples of each run
POCKET = "pocket · seed=3"
TRAINED = "trained · seed=3"  # a suite of one run
TUNED = "collab-tuned: weak-64 + strong-model"  # with two checkpoints in each domain
PLAIN = "collab: weak-64 + strong-model"


def empty(folder: Path) -> Path:
    """A snapshot of no runs."""
    return publish(Results(folder / "results"), folder / "empty.duckdb")


def full(folder: Path, texts: bool = True) -> Path:
    """Two domains, two weak models and a strong one, all four systems, a control, two checkpoints."""
    results = Results(folder / "results")
    for domain in ("ethics", "medical"):
        _run(results, domain, "strong", 10)
        for size, alone, together in (("small", 12, 20), ("large", 16, 26)):
            _run(results, domain, "weak", alone, weak=_weak(size, "sft"))
            _run(results, domain, "collab", together, weak=_weak(size, "sft"))
            _run(results, domain, "collab-tuned", together + 8, weak=_weak(size, "dpo"))
        _run(results, domain, "collab", 4, weak=_weak("small", "sft"), control="shuffled")
        _run(results, domain, "collab-tuned", 20, weak=_weak("large", "worse"), day=5)
    return publish(results, folder / "full.duckdb", texts=texts, command="cowest publish")


def pairings(folder: Path) -> Path:
    """Two weak models, two domains, a control, trainings, checkpoints and a blessed baseline."""
    results = Results(folder / "results")
    results.prepare()
    made = []
    for number, domain in enumerate(("ethics", "medical")):
        given: dict[str, Any] = {"domain": domain, "suite": "pocket", "options": {"seed": 3}}
        texts: dict[str, list[Any]] = {
            "question": [f"{domain} question {i}" for i in range(TRIED)],
            "gold": [f"gold {i}" for i in range(TRIED)],
            "output": [f"final answer {i}" for i in range(TRIED)],
            "strong_seconds": [0.5] * TRIED,
        }
        drafted = texts | {
            "draft": [f"draft answer {i}" for i in range(TRIED)],
            "weak_seconds": [0.25] * TRIED,
        }
        store(results, random_scores(TRIED, 0.4, number), system="strong", row=texts, **given)
        for size, share in ((32, 0.45), (64, 0.6)):
            weak = {"name": f"/elsewhere/sft-{size}", "base": f"weak-{size}"}
            scores = random_scores(TRIED, share, 10 * number + size)
            store(results, scores, system="weak", weak=weak, row=texts, **given)
            scores = random_scores(TRIED, share + 0.1, 20 * number + size)
            store(results, scores, weak=weak, row=drafted, **given)
        for checkpoint, share in enumerate((0.8, 0.95)):
            weak = {"name": "/elsewhere/sft-64", "base": "weak-64", "adapter": f"/dpo-{checkpoint}"}
            scores = random_scores(TRIED, share, 30 * number + checkpoint)
            when = at(10 + checkpoint)
            told: dict[str, Any] = {"system": "collab-tuned", "weak": weak, "row": drafted}
            made.append(store(results, scores, created=when, **told, **given))
        store(results, random_scores(TRIED, 0.2, number), control="shuffled", weak=weak, row=drafted, **given)  # fmt: skip
    tuned(results, domain="medical", suite="trained", data="other")
    blessed = results.root / "baselines"
    blessed.mkdir()
    baseline.bless("main", [baseline.scored(results, made[-1])], blessed)
    return publish(results, results.root / "board.duckdb", baselines=blessed)


def known(folder: Path) -> Path:
    """Models with cards, and one without."""
    results = Results(folder / "results")
    for strong in ("openai/gpt-4", "meta-llama/Meta-Llama-3-8B"):
        for weak in ("Qwen/Qwen2.5-0.5B", "org/unknown"):
            _run(results, "medical", "collab", 10, strong=strong, weak={"name": weak, "base": weak})
    return publish(results, folder / "known.duckdb")


def broken(folder: Path) -> Path:
    """Runs with errors, without the systems to compare with, with hostile texts and names."""
    results = Results(folder / "results")
    scores = [None, None, *right(10, 20)]
    texts = {"draft": [HOSTILE] * 22, "output": ["x" * 50_000] * 22, "answer": [None] * 22}
    _run(
        results,
        "<img src=x>",
        "collab",
        scores,
        weak=HOSTILE,
        strong="s'; DROP TABLE runs",
        row=texts,
    )
    _run(results, "ethics", "weak", [None] * 5, weak="**bold** [a](http://evil.example)")
    _run(results, "ethics", "collab-tuned", right(3, 5), weak="w", strong="s")
    return publish(results, folder / "broken.duckdb")


def _weak(size: str, checkpoint: str) -> dict[str, Any]:
    return {"name": f"/models/{size}-{checkpoint}", "base": f"weak-{size}"}


def _run(
    results: Results,
    domain: str,
    system: str,
    scores: int | Sequence[float | None],
    *,
    day: int = 0,
    **given: Any,
) -> None:
    known = right(scores, QUESTIONS) if isinstance(scores, int) else scores
    drafted = {"draft": [f"draft {i} says perhaps blue" for i in range(len(known))]}
    given.setdefault("row", {} if system in ("weak", "strong") else drafted)
    given["row"] = {"output": [f"the answer {i} is blue" for i in range(len(known))]} | given["row"]
    if system != "weak":
        given.setdefault("strong", "strong")
    store(
        results,
        known,
        system=system,
        domain=domain,
        suite=SUITE,
        created=START + timedelta(days=day),
        **given,
    )
