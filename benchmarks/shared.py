"""What several benchmarks need: stored runs of any size, CPU seconds, peak memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from multiprocessing import Process
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from cowest_bench.store import Results, Run, arrow_schema
from cowest_bench.systems import find_system

TEXT = "A patient of 54 years is seen with pain in the chest. " * 4


def write(
    results: Results,
    run_id: str,
    system: str,
    count: int,
    seed: int,
    varied: bool = False,
    domain: str = "t",
) -> None:
    """Store a run of ``count`` right or wrong answers in clusters of five, with texts as long as real ones.

    With ``varied`` all texts differ, so that Parquet cannot store them once.
    """
    rng = np.random.default_rng(seed)
    of = find_system(system)
    models = {role: role[0] for role in of.roles}
    known: dict[str, Any] = {
        "run_id": pyarrow.repeat(run_id, count),
        "sample_id": np.arange(count),
        "epoch": np.ones(count, dtype=int),
        "cluster": [f"passage {i // 5}" for i in range(count)],
        "score": (rng.random(count) < 0.7).astype(float),
        "cost": rng.random(count) / 1000,
        "weak_seconds": rng.random(count),
        "strong_seconds": rng.random(count),
        "answer": rng.choice(["A", "B", "C", "D"], count),
        "error": pyarrow.nulls(count, pyarrow.string()),
    }
    if varied:
        numbers = [str(number) for number in rng.permutation(count)]
        for name in ("question", "draft", "output"):
            known[name] = [f"{number} {TEXT}" for number in numbers]
    blank = {"string": TEXT, "int64": 1, "double": 0.0}
    schema = arrow_schema()
    table = pyarrow.table(
        {f.name: known.get(f.name, pyarrow.repeat(blank[str(f.type)], count)) for f in schema},
        schema=schema,
    )
    pyarrow.parquet.write_table(table, results.runs / f"{run_id}.parquet")
    run = Run.model_validate(
        {
            **dict.fromkeys(("task", "log"), "t"),
            "domain": domain,
            "run_id": run_id,
            "split": "test",
            "system": system,
            "seed": seed,
            "epochs": 1,
            "weak": models.get("weak"),
            "strong": models.get("strong"),
            "n_total": count,
            "n_scored": count,
            "score": 0.7,
            "metrics": {},
            "seconds": 1.0,
            "score_id": "same",
            "data": f"data-{domain}",
            "compared_with": of.compared_with,
            "identity": {"models": models},
        }
    )
    (results.runs / f"{run_id}.json").write_text(run.model_dump_json())


def apart(work: Callable[..., None], *given: Any) -> None:
    """Do something in another process, so that its memory does not count here."""
    process = Process(target=work, args=given)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}.")


def cpu_seconds(work: Callable[[], Any], times: int = 3) -> float:
    """The least of several measurements."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def peak() -> int:
    """The most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
