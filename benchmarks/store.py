"""What it costs to list and to publish a folder of many finished runs.

    python benchmarks/store.py                # 250 and 1,000 runs of 20 samples
    python benchmarks/store.py --runs 4000

Prints the CPU seconds of whole commands, their start included: with a new database, with one that is up
to date, and after one run has been added; and how they grow from a quarter of the runs to all.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from shared import write

from cowest_bench.store import Results
from cowest_bench.systems import system_names

DOMAINS = 25  # data sets, on which each system has several runs
COMMANDS = ("results", "publish")


@click.command()
@click.option("--runs", default=1_000, show_default=True, help="Of the larger folder.")
@click.option("--samples", default=20, show_default=True, help="Of each run.")
def main(runs: int, samples: int) -> None:
    """Write two folders of runs, and measure the commands that read all of them."""
    taken = [measure(count, samples) for count in (runs // 4, runs)]
    click.echo(f"CPU seconds{'':24}{runs // 4:>8,} runs{runs:>8,} runs   growth")
    for name in taken[0]:
        small, large = (each[name] for each in taken)
        click.echo(f"{name:34}{small:13.2f}{large:13.2f}{large / small:9.1f}")


def measure(runs: int, samples: int) -> dict[str, float]:
    """CPU seconds by what was done, for a folder of so many runs."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        results = Results(folder)
        results.prepare()
        for i in range(runs):
            add(results, i, samples)
        for number, command in enumerate(COMMANDS):
            found[f"cowest {command}, first time"] = cpu_seconds_of(command, results.root)
            found[f"cowest {command}, nothing new"] = cpu_seconds_of(command, results.root)
            add(results, runs + number, samples)
            found[f"cowest {command}, one new run"] = cpu_seconds_of(command, results.root)
    return found


def add(results: Results, i: int, samples: int) -> None:
    """Store run number ``i``."""
    systems = system_names()
    system = systems[i % len(systems)]
    domain = f"domain-{i // len(systems) % DOMAINS}"
    write(results, f"{i:012x}", system, samples, i, domain=domain)


def cpu_seconds_of(command: str, root: Path) -> float:
    """What a command took in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = [sys.executable, "-m", "cowest_bench", command, "--results", str(root)]
    subprocess.run(told, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
