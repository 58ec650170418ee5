"""What the leaderboard costs with a million stored rows, beside a peer in the same run.

    python benchmarks/board.py                # ten runs of 100,000 rows
    python benchmarks/board.py --rows 100000

Publishing is compared with only copying the same columns of the same Parquet files into a DuckDB file,
the least that a snapshot takes. Prints the CPU seconds of all threads and the peak memory, each measured
in its own process. Exits with 1 if a million rows take a minute of CPU or more.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from multiprocessing import Queue, get_context
from pathlib import Path
from typing import Any

import click
import duckdb
from shared import apart, cpu_seconds, peak, write

from cowest_bench.board.snapshot import publish
from cowest_bench.store import Results
from cowest_bench.store.schema import TABLES
from cowest_bench.store.tables import SETTINGS
from cowest_bench.systems import system_names

RUNS = 10
LONGEST = 60.0  # CPU seconds that a million rows may take


@dataclass(frozen=True)
class Cost:
    """What a piece of work took."""

    cpu: float  # seconds of all threads
    memory: int  # bytes that the process had at most, beyond those at the start
    size: int  # bytes that it wrote

    def __str__(self) -> str:
        mib = 2**20
        return f"CPU {self.cpu:6.2f} s   memory {self.memory / mib:6.0f} MiB   file {self.size / mib:6.0f} MiB"


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Of all runs together.")
@click.option("--varied/--same", default=True, help="Whether every row has texts of its own.")
def main(rows: int, varied: bool) -> None:
    """Write runs, and measure how long publishing them takes."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(folder)
        results.prepare()
        apart(write_runs, results, rows // RUNS, varied)
        stored = sum(path.stat().st_size for path in results.runs.iterdir())
        click.echo(f"{rows:,} rows in {RUNS} runs, {stored / 2**20:.0f} MiB stored")
        fine = measure_publishing(results, rows)
    if not fine:
        sys.exit(1)


def write_runs(results: Results, count: int, varied: bool) -> None:
    """Runs of all systems on the same samples."""
    systems = system_names()
    for i in range(RUNS):
        write(results, f"{i:012x}", systems[i % len(systems)], count, i, varied)


def measure_publishing(results: Results, rows: int) -> bool:
    """Whether publishing is fast enough; prints its cost beside that of only copying."""
    copying = cost(copy, results, results.root / "copy.duckdb")
    publishing = cost(publish, results, results.root / "board.duckdb")
    numbers = cost(publish_numbers, results, results.root / "numbers.duckdb")
    click.echo(f"copying      {copying}")
    click.echo(f"publishing   {publishing}   {publishing.cpu / copying.cpu:.1f} x the CPU")
    click.echo(f"--no-texts   {numbers}")
    return publishing.cpu < max(LONGEST * rows / 1_000_000, 5)


def publish_numbers(results: Results, target: Path) -> None:
    """Publish without texts."""
    publish(results, target, texts=False)


def copy(results: Results, target: Path) -> None:
    """Only copy the snapshot's columns of all rows into a file."""
    columns = ", ".join(TABLES["samples"])
    with duckdb.connect(str(target)) as db:
        db.execute(SETTINGS)
        db.execute(
            f"CREATE TABLE samples AS SELECT {columns} FROM read_parquet(?)",
            [str(results.runs / "*.parquet")],
        )


def cost(work: Any, results: Results, target: Path) -> Cost:
    """The cost of ``work(results, target)`` in its own process."""
    context = get_context("spawn")
    told: Queue[tuple[float, int]] = context.Queue()
    process = context.Process(target=_measured, args=(work, results, target, told))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}.")
    cpu, memory = told.get()
    return Cost(cpu, memory, target.stat().st_size)


def _measured(work: Any, results: Results, target: Path, told: Queue[tuple[float, int]]) -> None:
    import cowest_bench.board.snapshot  # noqa: F401  (what is imported is not what is measured)

    before = peak()
    cpu = cpu_seconds(lambda: work(results, target), times=1)
    told.put((cpu, peak() - before))


if __name__ == "__main__":
    main()
