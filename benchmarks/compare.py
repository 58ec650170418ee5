"""What comparing a million stored rows costs, beside only reading the columns it needs.

    python benchmarks/compare.py                # two runs of 500,000 rows
    python benchmarks/compare.py --rows 100000

A collaboration and its weak model alone, so that copied answers are counted too. CPU seconds of this
process, best of three, and the memory by which its peak grew. Exits with 1 if a million rows take a
second of CPU or more.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Process
from typing import Any

import click
import numpy as np
import pyarrow
import pyarrow.parquet

from cowest_bench.records import Results, Run, arrow_schema
from cowest_bench.selection import compare_runs

SEEN = ("sample_id", "score", "cluster", "cost", "weak_seconds", "strong_seconds", "answer")


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Of both runs together.")
def main(rows: int) -> None:
    """Write two runs, read their columns, compare them."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(folder)
        results.prepare()
        writer = Process(target=write_both, args=(results, rows // 2))  # its memory is not ours
        writer.start()
        writer.join()
        runs = results.all_runs()
        stored = sum(path.stat().st_size for path in results.runs.iterdir())

        def read() -> None:
            for run in runs:
                results.columns(run, SEEN)

        def compare() -> None:
            compare_runs(results, "aa", "bb", margin=0.02, alpha=0.05)

        before = peak()
        reading = cpu_seconds(read)
        read_peak = peak()
        comparing = cpu_seconds(compare)
    grown = (peak() - before) / 2**20
    click.echo(f"{rows:,} rows, {stored / 2**20:.0f} MiB stored")
    click.echo(
        f"CPU     reading {reading:.2f} s, comparing {comparing:.2f} s: {comparing / reading:.1f} x"
    )
    click.echo(
        f"memory  reading {(read_peak - before) / 2**20:.0f} MiB, comparing {grown:.0f} MiB: "
        f"{grown * 2**20 / rows:.0f} bytes a row"
    )
    if comparing >= max(1.0, rows / 1_000_000):
        sys.exit(1)


def write_both(results: Results, count: int) -> None:
    """The two runs."""
    write(results, "aa", "collab", count, 0)
    write(results, "bb", "weak", count, 1)


def write(results: Results, run_id: str, system: str, count: int, seed: int) -> None:
    """A run of right/wrong answers in clusters of five, with texts as long as real ones."""
    rng = np.random.default_rng(seed)
    models = {"weak": "w"} if system == "weak" else {"weak": "w", "strong": "s"}
    text = "A patient of 54 years is seen with pain in the chest. " * 4
    known: dict[str, Any] = {
        "sample_id": np.arange(count),
        "epoch": np.ones(count, dtype=int),
        "cluster": [f"passage {i // 5}" for i in range(count)],
        "score": (rng.random(count) < 0.7).astype(float),
        "cost": rng.random(count) / 1000,
        "weak_seconds": rng.random(count),
        "strong_seconds": rng.random(count),
        "answer": rng.choice(["A", "B", "C", "D"], count),
    }
    blank = {"string": text, "int64": 1, "double": 0.0}
    schema = arrow_schema()
    table = pyarrow.table(
        {f.name: known.get(f.name, pyarrow.repeat(blank[str(f.type)], count)) for f in schema},
        schema=schema,
    )
    pyarrow.parquet.write_table(table, results.runs / f"{run_id}.parquet")
    run = Run.model_validate(
        {
            **dict.fromkeys(("task", "domain", "log"), "t"),
            "run_id": run_id,
            "split": "test",
            "system": system,
            "seed": seed,
            "epochs": 1,
            "weak": "w",
            "strong": models.get("strong"),
            "n_total": count,
            "n_scored": count,
            "score": 0.7,
            "metrics": {},
            "seconds": 1.0,
            "identity": {"data": "same", "models": models, "graded": False},
        }
    )
    (results.runs / f"{run_id}.json").write_text(run.model_dump_json())


def cpu_seconds(work: Callable[[], None]) -> float:
    """The best of three."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def peak() -> int:
    """Bytes that this process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
