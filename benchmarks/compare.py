"""What comparing a million stored rows costs, next to only reading the columns it needs.

    python benchmarks/compare.py                # two runs of 500,000 rows
    python benchmarks/compare.py --rows 100000

Compares a collaboration with its weak model alone, so that copied answers are counted too. Prints the CPU
seconds of this process, best of three, and the growth of its peak memory. Exits with 1 if a million rows
take a second of CPU or more.
"""

from __future__ import annotations

import sys
import tempfile

import click
from shared import apart, cpu_seconds, peak, write

from cowest_bench.store import Results
from cowest_bench.store.comparison import compare_runs

SEEN = ("sample_id", "score", "cluster", "cost", "weak_seconds", "strong_seconds", "answer")


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of both runs together.")
def main(rows: int) -> None:
    """Write two runs, read their columns, and compare them."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(folder)
        results.prepare()
        apart(write_both, results, rows // 2)
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
    """Write the two runs."""
    write(results, "aa", "collab", count, 0)
    write(results, "bb", "weak", count, 1)


if __name__ == "__main__":
    main()
