"""Hand-made snapshots for the leaderboard's tests: every system, no system, and what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cowest_bench.board.snapshot import publish
from cowest_bench.store import Results
from tests.stored import right, store

SUITE = "town"
QUESTIONS = 40
START = datetime(2026, 1, 1, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script> ![x](http://evil.example/x.png) \u202eright to left\x1b[31m"


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
